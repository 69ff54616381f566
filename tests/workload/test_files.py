from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.request import Request
from tetribench.workload import files
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.files import FileWorkload
from tetribench.workload.generate import generate
from tetribench.workload.request_set import RequestSet


def refused(path: Path, content: str) -> str:
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        FileWorkload(path=str(path)).draw(0)
    assert "\n" not in str(error.value)
    start = f"workload.path={path}: "
    assert str(error.value).startswith(start)
    return str(error.value).removeprefix(start)


@given(
    requests=st.lists(
        st.tuples(
            st.floats(0, 1e9),
            st.integers(1, 99),
            st.integers(1, 99),
            st.booleans(),
            st.text(max_size=5),
            st.sampled_from(["default", "batch"]),
        ),
        max_size=10,
    ),
    prompts=st.booleans(),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[float, int, int, bool, str, str]], prompts: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "requests.jsonl"
    request_set = RequestSet(
        name="x",
        requests=[
            Request(
                id=index,
                arrival_s=arrival_s,
                num_prompt_tokens=num_prompt,
                max_output_tokens=num_output,
                natural_stop=stop,
                label=label,
                sla_class=sla_class,
                prompt_ids=tuple(range(num_prompt)) if prompts else (),
            )
            for index, (arrival_s, num_prompt, num_output, stop, label, sla_class) in enumerate(requests)
        ],
        num_cut=2,
        num_skipped=1,
        texts={0: "first\nprompt"} if prompts and requests else {},
    )
    files.write(request_set, path, prompts=prompts)
    assert files.read(path) == request_set


def test_prompts_are_written_only_when_asked(tmp_path: Path, mixed: ClassWorkload) -> None:
    filled = generate(mixed, 0, 512).with_prompts(1000, seed=0)
    files.write(filled, tmp_path / "lengths.jsonl")
    files.write(filled, tmp_path / "prompts.jsonl", prompts=True)
    assert files.read(tmp_path / "lengths.jsonl") == generate(mixed, 0, 512)
    assert files.read(tmp_path / "prompts.jsonl") == filled
    assert '"prompts":false' in (tmp_path / "lengths.jsonl").read_text().splitlines()[0]
    assert "prompt_ids" not in (tmp_path / "lengths.jsonl").read_text()


def test_a_file_is_served_as_it_is_where_it_fits(tmp_path: Path, mixed: ClassWorkload) -> None:
    path = tmp_path / "requests.jsonl"
    drawn = generate(mixed, 0, 512)
    files.write(drawn, path)
    assert generate(FileWorkload(path=str(path)), 99, 2048) == drawn
    smaller = generate(FileWorkload(path=str(path)), 99, 256)
    assert max(request.num_tokens for request in smaller.requests) == 256
    assert smaller.num_cut > drawn.num_cut


def test_the_sla_class_is_written_where_it_is_not_the_default(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    one = Request(id=0, arrival_s=0.0, num_prompt_tokens=1, max_output_tokens=1)
    files.write(RequestSet(name="x", requests=[one, replace(one, id=1, sla_class="batch")]), path)
    _, plain, classed = path.read_text().splitlines()
    assert "sla_class" not in plain and '"sla_class":"batch"' in classed
    stated = "its requests do not have the fingerprint that its first line states"
    assert refused(path, path.read_text().replace("batch", "other")) == stated
    assert refused(path, path.read_text().replace("other", "a/b")).startswith("not a file of requests: sla_class=a/b")


def test_a_changed_file_is_refused(tmp_path: Path, mixed: ClassWorkload) -> None:
    path = tmp_path / "requests.jsonl"
    files.write(generate(mixed, 0, 512), path)
    content = path.read_text()
    lines = content.splitlines()
    stated = "its requests do not have the fingerprint that its first line states"
    assert refused(path, "\n".join(lines[:-1])) == stated
    assert refused(path, content.replace('"label":"LPLD"', '"label":"LPHD"', 1)) == stated
    assert refused(path, content.replace('"version":1', '"version":2')).endswith("its version is 2, legal is 1")
    assert "not a file of requests" in refused(path, content.replace("max_output_tokens", "max_tokens", 1))
    assert "not a file of requests" in refused(path, content.replace('"num_cut"', '"cut"', 1))


@pytest.mark.parametrize("content", ["", "[]", '{"format":"other"}', "arrival_s,prompt_tokens\n1,2\n"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    assert refused(tmp_path / "other.jsonl", content).startswith("not a file of requests: ")


def test_a_missing_file_is_refused_at_construction(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^workload\.path=.*gone\.jsonl: there is no such file$"):
        FileWorkload(path=str(tmp_path / "gone.jsonl"))
