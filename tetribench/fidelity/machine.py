"""Whether a machine was quiet while something was measured on it: the work of others, and a loop of known length."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

NUM_PROBES = 9
MOST_OTHER_CORES = 0.1
"""Cores that others may take on a machine that is called quiet."""
MOST_SLOWDOWN = 1.1
"""How much slower than the fastest probe known the probes around a measurement may be, likewise."""


@dataclass(slots=True)
class MachineState:
    """`other_cores` is the mean number of cores that were busy with other programs, or that the hypervisor gave to
    others; None where /proc does not say. The probes are seconds of one loop just before and just after."""

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
    busy_s, own_s, started_s = _busy_s(), _own_s(), time.monotonic()
    yield state
    wall_s = time.monotonic() - started_s
    ended_s = _busy_s()
    if busy_s is not None and ended_s is not None and wall_s > 0:
        state.other_cores = max(ended_s - busy_s - (_own_s() - own_s), 0.0) / wall_s
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


def _busy_s() -> float | None:
    """Core-seconds since the machine started that were not idle, those that the hypervisor took included."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(int, stat.read_text().split()[1:11])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Core-seconds of this process and of its children that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
