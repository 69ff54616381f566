import gzip
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tetribench.workload.arrivals import AtOnce, Constant
from tetribench.workload.generate import generate
from tetribench.workload.text import TextWorkload


class Words:
    """One token a word, and one more at the front for a chat template."""

    def encode(self, text: str, chat: bool) -> list[int]:
        return [1] * chat + [len(word) for word in text.split()]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    content = "\n".join(map(json.dumps, rows)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def numbered(num: int, field: str = "prompt") -> list[dict[str, Any]]:
    return [{field: f"prompt number {index}"} for index in range(num)]


def texts(path: str, **options: Any) -> dict[int, str]:
    return TextWorkload(path=path, arrivals=AtOnce(), **{"num_requests": 1, **options}).draw(0, Words()).texts


def refused(path: str, **options: Any) -> str:
    with pytest.raises(ValueError) as error:
        texts(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_prompts_are_tokenised_and_stop_naturally(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", [{"prompt": "word " * 600}])
    workload = TextWorkload(path=path, arrivals=AtOnce(), num_requests=1, max_output_tokens=200)
    request_set = generate(workload, 0, 2048, Words())
    request = request_set.requests[0]
    assert request_set.name == "some"
    assert request_set.texts == {0: "word " * 600}
    assert request.prompt_ids == (1, *[4] * 600)
    assert (request.num_prompt_tokens, request.max_output_tokens) == (601, 200)
    assert request.natural_stop
    assert request.label == "HPHD"
    short = generate(workload, 0, 100, Words())
    assert short.num_cut == 1
    assert short.requests[0].prompt_ids == (1, *[4] * 98)


def test_without_chat_the_prompt_is_taken_raw(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", [{"prompt": "a bc"}])
    drawn = TextWorkload(path=path, arrivals=AtOnce(), num_requests=1, chat=False).draw(0, Words())
    assert drawn.requests[0].prompt_ids == (1, 2)


def test_the_sample_has_no_repeats_and_depends_on_the_seed(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", numbered(50))
    workload = TextWorkload(path=path, arrivals=Constant(), request_rate=2.0, num_requests=20)
    drawn = workload.draw(0, Words())
    assert len(set(drawn.texts.values())) == 20
    assert drawn == workload.draw(0, Words())
    assert drawn.texts != workload.draw(1, Words()).texts
    assert [request.arrival_s for request in drawn.requests] == [index / 2 for index in range(20)]
    assert texts(path, num_requests=5) == {index: drawn.texts[index] for index in range(5)}


def test_blank_prompts_do_not_count(tmp_path: Path) -> None:
    blank: list[dict[str, Any]] = [{"prompt": " "}, {"prompt": None}, {"prompt": ""}]
    path = jsonl(tmp_path / "some.jsonl", [*blank, *numbered(2)])
    assert set(texts(path, num_requests=2).values()) == {"prompt number 0", "prompt number 1"}
    assert refused(path, num_requests=3) == f"workload.num_requests=3: {path} has only 2 prompts"


@pytest.mark.parametrize("name", ["some.jsonl", "some.jsonl.gz"])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"answer": "no", "question": "yes?"}, "yes?"),
        ({"prompt": "yes"}, "yes"),
        ({"instruction": "do", "input": "this"}, "do\n\nthis"),
        ({"instruction": "do", "input": ""}, "do"),
        ({"instruction": "do", "instances": [{"input": "this"}, {"input": "that"}]}, "do\n\nthis"),
        ({"text": "yes"}, "yes"),
        ({"turns": ["first", "second"]}, "first"),
        ({"turns": [{"content": "first"}, {"content": "second"}]}, "first"),
        ({"conversations": [{"from": "human", "value": "first"}]}, "first"),
    ],
)
def test_the_prompt_field_is_found(tmp_path: Path, name: str, row: dict[str, Any], expected: str) -> None:
    assert texts(jsonl(tmp_path / name, [row])) == {0: expected}


def test_a_conversation_without_turns_is_blank(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", [{"turns": ["first"]}, {"turns": []}])
    assert refused(path, num_requests=2).endswith("has only 1 prompts")


def test_a_field_can_be_chosen(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", [{"prompt": "no", "other": "yes", "number": 7}])
    assert texts(path, field="other") == {0: "yes"}
    assert refused(path, field="missing") == (
        "workload.field=missing: must be the column with the prompts, one of prompt, other, number"
    )
    assert refused(path, field="number") == "workload.field=number: has a int where a prompt should be"


def test_an_unknown_layout_lists_the_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", [{"a": "x", "b": "y"}])
    assert refused(path) == "workload.field=None: must be the column with the prompts, one of a, b"


def test_json_csv_parquet_and_plain_text(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text(json.dumps(numbered(3), indent=1))
    (tmp_path / "some.csv").write_text("prompt,other\nprompt number 0,x\nprompt number 1,x\nprompt number 2,x\n")
    (tmp_path / "some.csv.gz").write_bytes(gzip.compress((tmp_path / "some.csv").read_bytes()))
    (tmp_path / "some.txt").write_text("prompt number 0\nprompt number 1\nprompt number 2\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(numbered(3)), tmp_path / "some.parquet")
    expected = {row["prompt"] for row in numbered(3)}
    for path in sorted(tmp_path.iterdir()):
        assert set(texts(str(path), num_requests=3).values()) == expected, path


def test_nothing_is_left_on_disk_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(datasets, "load_dataset", spy := Mock(wraps=datasets.load_dataset))
    path = jsonl(tmp_path / "some.jsonl.gz", numbered(5))
    texts(path, num_requests=5)
    assert Path(spy.call_args.kwargs["cache_dir"]).parent == tmp_path / "temporary"
    assert list((tmp_path / "temporary").iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


def test_progress_bars_that_were_off_stay_off(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    try:
        texts(jsonl(tmp_path / "some.jsonl", numbered(1)))
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()


def test_a_hub_id_is_loaded_by_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, **options: Any) -> Any:
        if path == "nobody/nothing":
            raise ConnectionError("Couldn't reach the Hub\nmore")
        assert (path, options["split"]) == ("openai/gsm8k", "test")
        assert Path(options["cache_dir"]).is_dir()
        return datasets.Dataset.from_list([{"question": "yes?"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    drawn = TextWorkload(path="openai/gsm8k", split="test", arrivals=AtOnce(), num_requests=1).draw(0, Words())
    assert (drawn.name, drawn.texts) == ("gsm8k", {0: "yes?"})
    assert refused("nobody/nothing") == (
        "workload.path=nobody/nothing: cannot be loaded as a hub id: Couldn't reach the Hub"
    )


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"prompt": \n')
    assert refused(str(path)).startswith(f"workload.path={path}: cannot be loaded as a file: ")


def test_illegal_options_are_refused_at_construction(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "some.jsonl", numbered(1))
    (tmp_path / "some.xlsx").write_text("")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"num_requests": 0}, "workload.num_requests=0: must be at least 1"),
        ({"max_output_tokens": 0}, "workload.max_output_tokens=0: must be at least 1"),
        ({"arrivals": Constant()}, "workload.request_rate: a rate in requests/s is needed by arrivals constant"),
        ({"path": str(tmp_path / "gone.jsonl")}, f"workload.path={tmp_path}/gone.jsonl: there is no such file"),
        (
            {"path": str(tmp_path / "some.xlsx")},
            f"workload.path={tmp_path}/some.xlsx: must be a file that ends in "
            ".json, .jsonl, .csv, .parquet, .txt, or these with .gz",
        ),
    ]
    for options, message in cases:
        with pytest.raises(ValueError) as error:
            TextWorkload(**{"path": path, "arrivals": AtOnce(), **options})
        assert str(error.value) == message


def test_text_needs_a_tokenizer(tmp_path: Path) -> None:
    workload = TextWorkload(path=jsonl(tmp_path / "some.jsonl", numbered(1)), arrivals=AtOnce(), num_requests=1)
    with pytest.raises(
        ValueError, match=r"^workload\.path=.*: text needs a model with a tokenizer, such as model=smollm2$"
    ):
        generate(workload, 0, 2048)


@pytest.mark.parametrize(
    "name",
    [
        "gsm8k_test.jsonl.gz",
        "HumanEval.jsonl.gz",
        "arena-hard_question.jsonl.gz",
        "mt-bench_question.jsonl.gz",
        "gpteacher_codegen-instruct.json.gz",
        "gpteacher_roleplay-simple-deduped-roleplay-instruct.json.gz",
        "self-instruct_user_oriented_instructions.jsonl.gz",
    ],
)
def test_published_prompts(data: Path, name: str) -> None:
    assert len(texts(str(data / "text" / name), num_requests=16)) == 16
