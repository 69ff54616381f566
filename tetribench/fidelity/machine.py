"""Whether a machine was quiet while something was measured on it: the work of others, and a loop of known length."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np

from tetribench.machine import other_work

NUM_PROBES = 9
MOST_OTHER_CORES = 0.1
"""Cores that others may take on a machine that is called quiet."""
MOST_SLOWDOWN = 1.1
"""How much slower than the fastest probe known the probes around a measurement may be, likewise."""


@dataclass(slots=True)
class MachineState:
    """`other_cores` as in `OtherWork`. The probes are seconds of one loop just before and just after."""

    probe_before_s: float
    probe_after_s: float = 0.0
    other_cores: float | None = None

    @property
    def is_disturbed(self) -> bool:
        return (self.other_cores or 0.0) > MOST_OTHER_CORES


@contextmanager
def watched() -> Iterator[MachineState]:
    """What the machine did meanwhile; own are this process and its children, which must have ended by then."""
    state = MachineState(probe_s())
    with other_work() as work:
        yield state
    state.other_cores = work.other_cores
    state.probe_after_s = probe_s()


def is_quiet(state: MachineState, fastest_probe_s: float) -> bool:
    """Whether a time measured in between can be compared with another."""
    slowest_s = max(state.probe_before_s, state.probe_after_s)
    return not state.is_disturbed and slowest_s <= MOST_SLOWDOWN * fastest_probe_s


def probe_s() -> float:
    """The median time of a loop like an engine's work: it reads more memory than any cache holds, and computes."""
    memory, times = np.ones(2**24, dtype=np.float32), []
    for _ in range(NUM_PROBES):
        started_s = time.monotonic()
        memory.sum()
        sum(range(100_000))
        times.append(time.monotonic() - started_s)
    return median(times)
