from pathlib import Path

import pytest

from tetribench.training.lengths import Length, append, read_lengths


def length(index: int) -> Length:
    return Length(
        prompt=f"prompt {index}",
        source="some",
        model="m",
        num_prompt_tokens=2,
        num_output_tokens=index + 1,
        max_output_tokens=9,
        was_capped=index == 8,
    )


def test_lines_are_read_back_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lengths.jsonl"
    append(path, [length(0)])
    append(path, [length(8)])
    assert read_lengths(path) == [length(0), length(8)]
    path.write_bytes(path.read_bytes() + b'{"prompt": "pro')
    assert read_lengths(path) == [length(0), length(8)]


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lengths.jsonl"
    path.write_text('{"prompt": "x"}\n')
    with pytest.raises(ValueError, match="line 1 is not a measured response length"):
        read_lengths(path)
