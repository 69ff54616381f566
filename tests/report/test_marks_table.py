"""The table of marks, made of outcomes on disk; no benchmark is run."""

import csv
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.report.marks import (
    NEVER_RUN,
    Bound,
    Judged,
    Mark,
    Measured,
    Outcome,
    Verdict,
    judge,
    load_marks,
    read_outcomes,
)
from tetribench.report.marks_page import count, write_marks

GROUPS = """
- benchmark: bench_engine.py
  against: vLLM
  at_least: 1.0
  rows: [fast, slow, broken, gone]
- benchmark: bench_loadgen.py
  against: the schedule
  unit: ms
  at_most: 2
  rows: [late]
- benchmark: bench_end_to_end.py
  against: vLLM itself
  within: 0.1
  rows: [alike]
"""

OUTCOMES = {
    "bench_engine": [
        Outcome(test="test_rate[fast]", outcome="passed", marks=[Measured(row="fast", rounds=[0.5, 1.2, 1.1])]),
        Outcome(test="test_rate[slow]", outcome="passed", marks=[Measured(row="slow", rounds=[0.9, 0.8, 3.0])]),
        Outcome(test="test_rate[broken]", outcome="failed", reason="RuntimeError: it ended"),
        Outcome(test="test_rate[gone]", outcome="skipped", reason="there is no vLLM; `make peers`"),
        Outcome(test="test_more", outcome="passed", marks=[Measured(row="extra", rounds=[7.0])]),
    ],
    "bench_loadgen": [
        Outcome(test="test_late", outcome="passed", marks=[Measured(row="late", rounds=[1.5, 1.0], unit="ms")]),
    ],
}


@pytest.fixture
def marks(tmp_path: Path) -> list[Mark]:
    path = tmp_path / "marks.yaml"
    path.write_text(GROUPS)
    return load_marks(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bench"
    made.mkdir()
    for name, outcomes in OUTCOMES.items():
        lines = [msgspec.json.encode(one) + b"\n" for one in outcomes]
        (made / f"{name}.jsonl").write_bytes(b"".join(lines))
    return made


def by_row(judged: list[Judged]) -> dict[str, tuple[Verdict, str]]:
    return {one.mark.row: (one.verdict, one.reason) for one in judged}


def test_every_row_has_a_verdict_or_a_reason(marks: list[Mark], folder: Path) -> None:
    assert by_row(judge(marks, read_outcomes(folder))) == {
        "fast": (Verdict.met, ""),
        "slow": (Verdict.missed, ""),
        "broken": (Verdict.failed, "RuntimeError: it ended"),
        "gone": (Verdict.not_run, "there is no vLLM; `make peers`"),
        "late": (Verdict.met, ""),
        "alike": (Verdict.not_run, NEVER_RUN),
        "extra": (Verdict.no_mark, ""),
    }


def test_a_file_speaks_for_rows_that_no_test_is_named_after(marks: list[Mark]) -> None:
    outcomes = {"bench_loadgen.py": [Outcome(test="test_any", outcome="skipped", reason="needs two cores")]}
    assert by_row(judge(marks, outcomes))["late"] == (Verdict.not_run, "needs two cores")


def test_table_figures_and_page_are_written(marks: list[Mark], folder: Path) -> None:
    judged = write_marks(folder, marks)
    assert count(judged) == "2 met, 1 missed, 1 failed, 2 not run, 1 no mark"
    with (folder / "marks.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert rows["fast"]["rounds"] == "0.5 1.2 1.1" and rows["fast"]["median"] == "1.1"
    assert rows["gone"]["reason"] == "there is no vLLM; `make peers`" and rows["gone"]["median"] == ""
    page = (folder / "marks.html").read_text()
    for text in ("0.500 to 1.20", "within 10%", "not run: there is no vLLM; `make peers`", "≤ 2 ms"):
        assert text in page
    names = {f"marks_{unit}.{suffix}" for unit in ("ratio", "ms") for suffix in ("svg", "png")}
    assert {path.name for path in (folder / "figures").iterdir()} == names


def test_nothing_measured_is_a_table_too(marks: list[Mark], tmp_path: Path) -> None:
    (tmp_path / "bench_engine.jsonl").touch()
    assert count(write_marks(tmp_path, marks)) == f"{len(marks)} not run"
    assert "Nothing was measured." in (tmp_path / "marks.html").read_text()


def test_the_command_prints_it(
    tetribench: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tetribench("task=report", f"task.runs=[{folder}]") == 0
    printed = capsys.readouterr().out
    assert "over vLLM" in printed and "not run" in printed and (folder / "marks.html").is_file()


def test_the_command_takes_one_such_folder(
    tetribench: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tetribench("task=report", f"task.runs=[{folder},{folder}]") == 2
    assert "task.runs: a folder of benchmarks" in capsys.readouterr().err


def test_a_line_that_was_broken_off_is_left_out(folder: Path) -> None:
    with (folder / "bench_engine.jsonl").open("ab") as file:
        file.write(b'{"test": "test_ra')
    assert len(read_outcomes(folder)["bench_engine.py"]) == len(OUTCOMES["bench_engine"])


@pytest.mark.parametrize("line", ["{}", "nothing", '{"test": "a", "outcome": "xfailed"}'])
def test_any_other_line_is_refused(folder: Path, line: str) -> None:
    (folder / "bench_links.jsonl").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"bench_links.jsonl: cannot be read"):
        read_outcomes(folder)


def test_another_unit_than_the_mark_has_is_refused(marks: list[Mark]) -> None:
    outcomes = {"bench_loadgen.py": [Outcome(test="t", outcome="passed", marks=[Measured(row="late", rounds=[1.0])])]}
    with pytest.raises(ValueError, match="row 'late': measured in ratio; its mark is in ms"):
        judge(marks, outcomes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- {benchmark: b.py, against: x, rows: [a]}", "row 'a': must have one of at_least, at_most, within"),
        ("- {benchmark: b.py, against: x, rows: [a], at_least: 1, at_most: 2}", "must have one of"),
        ("- {benchmark: b.py, against: x, rows: [a, a], at_least: 1}", "row 'a': there are two of this name"),
        ("- {benchmark: b.py, against: x, rows: [], at_least: 1}", "cannot be read"),
        ("- {benchmark: b.py, against: x, rows: [a], at_least: -1}", "cannot be read"),
        ("- {benchmark: b.py, against: x, rows: [a], atleast: 1}", "cannot be read"),
    ],
)
def test_illegal_marks_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "marks.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"marks\.yaml: ") as raised:
        load_marks(path)
    assert reason in str(raised.value) and "\n" not in str(raised.value)


@given(st.floats(0.01, 100.0), st.floats(0.01, 1.0))
def test_within_does_not_depend_on_which_of_the_two_is_above(ratio: float, share: float) -> None:
    bound = Bound(kind="within", value=share)
    low, high = bound.ends
    assert bound.is_met(ratio) == (low <= ratio <= high) and low * high == pytest.approx(1.0)
