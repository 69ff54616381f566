"""Benchmarks say what they have measured as soon as they have: one that fails or hangs loses nobody else's results.

With `--benchmark-json=FOLDER/bench_NAME.json` each test adds a line to bench_NAME.jsonl beside it, which
`tetribench task=report` reads (`tetribench/report/marks.py`). A test says what it has measured as
`benchmark.extra_info["marks"] = [{"row": <a row of conf/marks.yaml>, "rounds": [<numbers>], "unit": "ratio"}]`.
"""

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec
import pytest

from tetribench.report.marks import SUFFIX, Measured, Outcome

LIMIT_S = 480
"""For the set-up of a test, and again for the test."""


class TooLong(Exception):
    """A benchmark did not end."""


@contextmanager
def limited(what: str) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"{what} did not end in {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Nothing runs beside what is in this folder."""
    item.add_marker("alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with limited("its set-up"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with limited("it"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    path = item.config.getoption("benchmark_json", None)
    if path and (report.when == "call" or (report.when == "setup" and not report.passed)):
        with Path(path).with_suffix(SUFFIX).open("ab") as file:
            file.write(msgspec.json.encode(outcome_of(item, report, call)) + b"\n")
    return report


def outcome_of(item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]) -> Outcome:
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    found = getattr(benchmark, "extra_info", {}).get("marks", []) if report.passed else []
    return Outcome(
        test=item.name,
        outcome=report.outcome,
        reason=_reason(report, call),
        marks=msgspec.convert(found, list[Measured]),
    )


def _reason(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """In one line."""
    if report.passed or call.excinfo is None:
        return ""
    if isinstance(report.longrepr, tuple):  # where it was skipped: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    return call.excinfo.exconly().strip().splitlines()[-1]
