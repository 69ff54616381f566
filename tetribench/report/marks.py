"""What `make bench` is held to, and what came of it: a row for each mark, judged by the median of its rounds.

A folder of benchmarks has a file of outcomes for each file of tests (`bench_links.jsonl`): a line for each test, as
soon as it has ended, with what it says of rows and, where it did not pass, why.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import msgspec

SUFFIX = ".jsonl"
NEVER_RUN = "it was not among the benchmarks that were run: `make bench` runs all"

Unit = Literal["ratio", "ms", "requests"]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """`value` is the least or the most that is legal, or by what factor it may be off 1 in either direction (0.1)."""

    kind: Literal["at_least", "at_most", "within"]
    value: float

    def is_met(self, value: float) -> bool:
        match self.kind:
            case "at_least":
                return value >= self.value
            case "at_most":
                return value <= self.value
            case "within":
                return 1 / (1 + self.value) <= value <= 1 + self.value

    def in_words(self, unit: Unit) -> str:
        if self.kind == "within":
            return f"within {self.value:.0%}"
        sign = "≥" if self.kind == "at_least" else "≤"
        return f"{sign} {self.value:g}" + ("" if unit == "ratio" else f" {unit}")

    @property
    def ends(self) -> tuple[float, ...]:
        """Where what is legal ends."""
        return (1 / (1 + self.value), 1 + self.value) if self.kind == "within" else (self.value,)


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows that one file of tests measures against one thing, with one mark."""

    benchmark: str
    against: str
    rows: Annotated[list[str], msgspec.Meta(min_length=1)]
    unit: Unit = "ratio"
    at_least: Positive | None = None
    at_most: NotNegative | None = None
    within: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """`row` is its name, `benchmark` the file of tests that measures it; without a bound there is nothing to meet."""

    row: str
    against: str
    unit: Unit
    bound: Bound | None
    benchmark: str


def load_marks(path: Path) -> list[Mark]:
    """In their order. Raises ValueError, in one line, for what is missing, unknown or illegal, and for rows of one
    name."""
    try:
        groups = msgspec.yaml.decode(path.read_bytes(), type=list[_Group])
    except (OSError, msgspec.DecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: cannot be read: {reason}") from error
    marks = [mark for group in groups for mark in _of_group(path, group)]
    rows = [mark.row for mark in marks]
    for row in rows:
        if rows.count(row) > 1:
            raise ValueError(f"{path}: row {row!r}: there are two of this name")
    return marks


def _of_group(path: Path, group: _Group) -> Iterable[Mark]:
    given = {"at_least": group.at_least, "at_most": group.at_most, "within": group.within}
    bounds = [Bound(kind=kind, value=value) for kind, value in given.items() if value is not None]  # type: ignore[arg-type]
    if len(bounds) != 1:
        raise ValueError(f"{path}: row {group.rows[0]!r}: must have one of {', '.join(given)}")
    for row in group.rows:
        yield Mark(row=row, against=group.against, unit=group.unit, bound=bounds[0], benchmark=group.benchmark)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a test says of a row: a number for each round, all of them."""

    row: str
    rounds: Annotated[list[float], msgspec.Meta(min_length=1)]
    unit: Unit = "ratio"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a test ended: `reason` says why it did not pass. `test` is its name within its file."""

    test: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""
    marks: list[Measured] = []


class Verdict(StrEnum):
    met = "met"
    missed = "missed"
    failed = "failed"
    not_run = "not run"
    no_mark = "no mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """`rounds` is empty where nothing was measured, and `reason` says why."""

    mark: Mark
    verdict: Verdict
    rounds: tuple[float, ...] = ()
    reason: str = ""

    @property
    def median(self) -> float | None:
        return median(self.rounds) if self.rounds else None


def is_bench(folder: Path) -> bool:
    """Whether it holds outcomes of benchmarks."""
    return any(folder.glob(f"bench_*{SUFFIX}"))


def read_outcomes(folder: Path) -> dict[str, list[Outcome]]:
    """By file of tests. A last line that was being written when the run was broken off is left out.

    Raises ValueError, in one line, for any other line that is none.
    """
    found = {}
    for path in sorted(folder.glob(f"bench_*{SUFFIX}")):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        try:
            found[f"{path.stem}.py"] = msgspec.json.Decoder(Outcome).decode_lines(whole)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
    return found


def judge(marks: Sequence[Mark], outcomes: dict[str, list[Outcome]]) -> list[Judged]:
    """Every mark in its order, then rows that were measured and have none."""
    measured = {one.row: one for tests in outcomes.values() for test in tests for one in test.marks}
    judged = [_judged(mark, measured.get(mark.row), outcomes.get(mark.benchmark, [])) for mark in marks]
    known = {mark.row for mark in marks}
    for file, tests in outcomes.items():
        for one in (one for test in tests for one in test.marks if one.row not in known):
            mark = Mark(row=one.row, against="", unit=one.unit, bound=None, benchmark=file)
            judged.append(Judged(mark=mark, verdict=Verdict.no_mark, rounds=tuple(one.rounds)))
    return judged


def _judged(mark: Mark, measured: Measured | None, tests: Sequence[Outcome]) -> Judged:
    if measured is None:
        return _unmeasured(mark, tests)
    if measured.unit != mark.unit:
        raise ValueError(f"row {mark.row!r}: measured in {measured.unit}; its mark is in {mark.unit}")
    assert mark.bound is not None
    verdict = Verdict.met if mark.bound.is_met(median(measured.rounds)) else Verdict.missed
    return Judged(mark=mark, verdict=verdict, rounds=tuple(measured.rounds))


def _unmeasured(mark: Mark, tests: Sequence[Outcome]) -> Judged:
    """The test whose parameter is the row's name speaks for it, else all of the file's that did not pass."""
    ended = [test for test in tests if test.outcome != "passed"]
    own = [test for test in ended if f"[{mark.row}]" in test.test] or ended
    reason = "; ".join(dict.fromkeys(test.reason for test in own)) or NEVER_RUN
    has_failed = any(test.outcome == "failed" for test in own)
    return Judged(mark=mark, verdict=Verdict.failed if has_failed else Verdict.not_run, reason=reason)
