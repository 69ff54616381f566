"""Whether the machine was quiet: what decides, and that nothing else does."""

import os
import threading
import time
from dataclasses import dataclass

import pytest

from tetribench.calibrate.watch import (
    MAX_OTHER_CORES,
    MAX_SLOWDOWN,
    PROBE_PERIOD_S,
    MachineState,
    is_quiet,
    quietest,
    watched,
)

QUIET = MachineState(0.0, 0.10, 0.12)


@dataclass(frozen=True)
class Measured:
    name: str
    machine: MachineState


@pytest.mark.alone
def test_every_core_is_probed_and_its_own_work_is_not_that_of_others() -> None:
    cores, threads = os.sched_getaffinity(0), threading.active_count()
    with watched() as state:
        time.sleep(2 * PROBE_PERIOD_S)
    assert 0.0 < state.probe_median_s <= state.probe_p90_s
    assert state.other_cores is None or state.other_cores >= 0.0
    assert os.sched_getaffinity(0) == cores and threading.active_count() == threads


def test_the_probe_ends_with_what_it_watches() -> None:
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), watched():
        raise ZeroDivisionError
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (MachineState(None, 0.10, 0.12), True),  # where /proc does not say
        (MachineState(MAX_OTHER_CORES, 0.10 * MAX_SLOWDOWN["median"] - 1e-6, 0.12 * MAX_SLOWDOWN["p90"] - 1e-6), True),
        (MachineState(MAX_OTHER_CORES + 0.01, 0.10, 0.12), False),
        (MachineState(0.0, 0.10 * MAX_SLOWDOWN["median"] + 1e-6, 0.12), False),
        (MachineState(0.0, 0.10, 0.12 * MAX_SLOWDOWN["p90"] + 1e-6), False),
    ],
)
def test_a_state_is_compared_with_the_quietest_known(state: MachineState, expected: bool) -> None:
    assert is_quiet(state, [MachineState(0.0, 0.2, 0.3), QUIET]) is expected


def test_the_first_has_nothing_to_be_compared_with() -> None:
    assert is_quiet(MachineState(0.0, 5.0, 9.0), [])


def states(*medians_s: float) -> list[Measured]:
    return [Measured(str(number), MachineState(0.0, one, 0.12)) for number, one in enumerate(medians_s)]


def test_measuring_ends_with_the_first_that_was_quiet() -> None:
    made, known = iter(states(0.2, 0.101, 0.1)), [QUIET]
    found, num_attempts = quietest(lambda: next(made), 3, known)
    assert (found.name, num_attempts, len(known)) == ("1", 2, 3)


def test_the_quietest_is_kept_where_none_was_quiet() -> None:
    made = iter(states(0.3, 0.2, 0.4))
    found, num_attempts = quietest(lambda: next(made), 3, [QUIET])
    assert (found.name, num_attempts) == ("1", 3)


def test_other_programs_count_more_than_a_slow_memory() -> None:
    made = iter([Measured("beside others", MachineState(0.5, 0.1, 0.12)), *states(0.4, 0.4)])
    found, _ = quietest(lambda: next(made), 2, [QUIET])
    assert found.name == "0"


def test_what_was_there_already_may_be_the_quietest() -> None:
    (there,), made = states(0.15), iter(states(0.3, 0.2))
    found, num_attempts = quietest(lambda: next(made), 2, [QUIET, there.machine], [there])
    assert (found, num_attempts) == (there, 2)
