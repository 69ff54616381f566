"""Whose work it was that kept the cores busy."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tetribench import machine
from tetribench.machine import other_work

pytestmark = pytest.mark.alone

BURN = "while True: pass"
TOLERANCE_CORES = 0.1
"""The kernel counts in ticks of 10 ms."""


@pytest.fixture
def one_core() -> Iterator[int]:
    """This process has one core, and its children."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    os.sched_setaffinity(0, {core})
    yield core
    os.sched_setaffinity(0, cores)


def burn(seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


def test_work_of_ones_own_is_not_that_of_others(one_core: int) -> None:
    """Own and other work together are no more than the core; own work counted twice would be."""
    own_s, started_s = time.process_time(), time.monotonic()
    with other_work() as work:
        burn(0.4)
        subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    assert work.num_cores == 1
    assert work.other_cores is not None
    own_cores = (time.process_time() - own_s) / (time.monotonic() - started_s)
    assert own_cores > 0
    assert own_cores + work.other_cores <= 1 + TOLERANCE_CORES


def test_a_program_beside_it_is_seen(one_core: int) -> None:
    """It and this process share the core, or others do with them."""
    beside = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        with other_work() as work:
            time.sleep(1.0)
    finally:
        beside.kill()
        beside.wait()
    assert work.other_cores is not None and work.other_cores > 0.5


def test_cores_that_are_not_ones_own_do_not_count(
    one_core: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of work that the files below say, of which only those of this process's core are taken."""
    rest = " 0 0 50 0 0 0 0 0 0"
    stats = [f"cpu 9{rest}\ncpu{one_core} 100{rest}\ncpu{one_core + 1} {other}{rest}\n" for other in (0, 10**9)]
    path = tmp_path / "stat"
    path.write_text(stats[0])
    monkeypatch.setattr(machine, "_STAT", path)
    with other_work() as work:
        path.write_text(stats[1])
    assert work.other_cores == 0.0


def test_where_the_kernel_does_not_say_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_STAT", tmp_path / "missing")
    with other_work() as work:
        pass
    assert work.other_cores is None
