"""Whether a machine was quiet while something was measured on it: what other programs did, and a probe of its memory.

/proc does not tell of the other tenants of a virtual machine's host, who take their part of the caches and of the
memory's bandwidth, for seconds at a time. So a thread reads a few megabytes of memory a few times a second, as an
engine reads its weights. What that takes does not depend on what the engines do: its median was within 3 % beside none,
one and two of them. It follows the time of iterations, loosely: over spans of 2 to 5 s the two had correlations of 0.2
to 0.7 (the more, the more the machine changed), and where the probe was 1 % slower, iterations were 0.6 to 2.7 %
slower.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from math import nan
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tetribench.core.units import MIB
from tetribench.engine.hardware import Hardware
from tetribench.engine.local_profile import LocalProfile
from tetribench.machine import other_work

PROBE_BYTES = 8 * MIB
"""About half of what an iteration of the tiny models reads, and more than a core's own caches hold."""
PROBE_PERIOD_S = 0.25
"""A probe takes 0.4 ms, so that all of them take 0.2 % of a core."""
MAX_OTHER_CORES = 0.1
"""Cores that others may take on a machine that is called quiet."""
MAX_SLOWDOWN = {"median": 1.05, "p90": 1.15}
"""How much slower than in the quietest measurement known the probes may be, likewise."""


@dataclass(slots=True)
class MachineState:
    """`other_cores` as in `OtherWork`; CPU seconds of the probes, on each core in turn."""

    other_cores: float | None = None
    probe_median_s: float = nan
    probe_p90_s: float = nan


@contextmanager
def watched() -> Iterator[MachineState]:
    """What the machine did meanwhile, known at the end; own are this process and its children, which must have ended by
    then."""
    state = MachineState()
    with other_work() as work, _probing() as probes_s:
        yield state
    state.other_cores = work.other_cores
    state.probe_median_s, state.probe_p90_s = map(float, np.percentile(probes_s, (50, 90)))


def is_quiet(state: MachineState, known: Sequence[MachineState]) -> bool:
    """Whether a time measured meanwhile can be compared with others; `known` are other states of the same machine."""
    slowdowns = _slowdowns(state, known)
    return not _is_disturbed(state) and all(slowdowns[name] <= most for name, most in MAX_SLOWDOWN.items())


def _is_disturbed(state: MachineState) -> bool:
    return (state.other_cores or 0.0) > MAX_OTHER_CORES


def _slowdowns(state: MachineState, known: Sequence[MachineState]) -> dict[str, float]:
    every = [state, *known]
    return {
        "median": state.probe_median_s / min(one.probe_median_s for one in every),
        "p90": state.probe_p90_s / min(one.probe_p90_s for one in every),
    }


def calibrated_in(hardware: Hardware) -> list[MachineState]:
    """What the machine did while a profile of it was measured; of any other profile nothing is known."""
    if not isinstance(hardware, LocalProfile):
        return []
    return [MachineState(**state) for state in hardware.machines.values()]


class Watched(Protocol):
    """Something that was measured."""

    @property
    def machine(self) -> MachineState: ...


Measurement = TypeVar("Measurement", bound=Watched)


def quietest(
    measure: Callable[[], Measurement],
    max_attempts: int,
    known: list[MachineState],
    already: Sequence[Measurement] = (),
) -> tuple[Measurement, int]:
    """Measure until the machine was quiet, at most `max_attempts` times; the quietest of these and of `already`, and
    how often was measured. Nothing but the state of the machine decides. `known` gets the new states."""
    found = list(already)
    for _ in range(max_attempts):
        found.append(measure())
        known.append(found[-1].machine)
        if is_quiet(found[-1].machine, known):
            break

    def order(one: Measurement) -> tuple[float, float]:
        others = (one.machine.other_cores or 0.0) if _is_disturbed(one.machine) else 0.0
        return others, max(_slowdowns(one.machine, known).values())

    return min(found, key=order), len(found) - len(already)


@contextmanager
def _probing() -> Iterator[list[float]]:
    """At least a probe on each core."""
    found_s: list[float] = []
    ended = threading.Event()
    cores = sorted(os.sched_getaffinity(0))
    memory = np.ones(PROBE_BYTES // 4, dtype=np.float32)

    def probe() -> None:
        for number, core in enumerate(cycle(cores)):
            if ended.is_set() and number >= len(cores):
                return
            os.sched_setaffinity(0, {core})  # of this thread alone
            found_s.append(_probe_s(memory))
            ended.wait(PROBE_PERIOD_S)

    thread = threading.Thread(target=probe, name="probe", daemon=True)
    thread.start()
    try:
        yield found_s
    finally:
        ended.set()
        thread.join()


def _probe_s(memory: npt.NDArray[np.float32]) -> float:
    """CPU time, which does not count what others on the same core made it wait."""
    started_s = time.thread_time()
    memory.sum()
    return time.thread_time() - started_s
