import json
from pathlib import Path
from typing import Any

import pytest

from tetribench.workload.arrivals import AtOnce
from tetribench.workload.text_mix import TextMixWorkload


class Words:
    """One token a word."""

    def encode(self, text: str, chat: bool) -> list[int]:
        return [len(word) for word in text.split()]


def file(path: Path, prompts: list[str]) -> str:
    path.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    return str(path)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [
        file(tmp_path / "few.jsonl", ["few 0", "few 1", "shared"]),
        file(tmp_path / "many.jsonl", [f"many {index}" for index in range(9)] + ["shared", "a very long one"]),
    ]


def mix(paths: list[str], **options: Any) -> TextMixWorkload:
    return TextMixWorkload(paths=paths, arrivals=AtOnce(), max_prompt_tokens=3, **options)


def test_files_take_turns_until_one_is_used_up(paths: list[str]) -> None:
    drawn = mix(paths, num_requests=12, max_output_tokens=200).draw(0, Words())
    assert len(set(drawn.texts.values())) == 12
    assert {*drawn.texts.values()} == {"few 0", "few 1", "shared", *(f"many {index}" for index in range(9))}
    sources = [drawn.sources[index] for index in range(12)]
    assert sources[:4] == ["few", "many", "few", "many"]
    assert set(sources[6:]) == {"many"}
    assert all(one.natural_stop and one.max_output_tokens == 200 for one in drawn.requests)
    assert drawn.requests[0].prompt_ids == tuple(map(len, drawn.texts[0].split()))


def test_the_order_depends_on_the_seed(paths: list[str]) -> None:
    workload = mix(paths, num_requests=8)
    assert workload.draw(0, Words()) == workload.draw(0, Words())
    assert workload.draw(0, Words()).texts != workload.draw(1, Words()).texts


def test_too_few_short_prompts_are_said(paths: list[str]) -> None:
    with pytest.raises(ValueError, match=r"workload.num_requests=13: workload.paths have only 12 prompts of at most"):
        mix(paths, num_requests=13).draw(0, Words())


def test_bad_options_are_refused(paths: list[str]) -> None:
    with pytest.raises(ValueError, match=r"workload.paths=\[\]: name at least one"):
        mix([])
    with pytest.raises(ValueError, match="text needs a model with a tokenizer"):
        mix(paths).draw(0)
    with pytest.raises(ValueError, match="there is no such file"):
        mix(["nowhere.jsonl"])
