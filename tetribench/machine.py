"""What other programs did on this machine's cores while something was measured on them."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")


@dataclass(slots=True)
class OtherWork:
    """`other_cores` is the mean number of this process's `num_cores` that were busy with other programs, or that the
    hypervisor gave to others; None where /proc does not say."""

    num_cores: int
    other_cores: float | None = None


@contextmanager
def other_work() -> Iterator[OtherWork]:
    """What others did meanwhile; own are this process and its children, which must have ended by then."""
    cores = sorted(os.sched_getaffinity(0))
    work = OtherWork(len(cores))
    busy_s, own_s, started_s = _busy_s(cores), _own_s(), time.monotonic()
    yield work
    wall_s = time.monotonic() - started_s
    ended_s = _busy_s(cores)
    if busy_s is not None and ended_s is not None and wall_s > 0:
        work.other_cores = max(ended_s - busy_s - (_own_s() - own_s), 0.0) / wall_s


def _busy_s(cores: list[int]) -> float | None:
    """Core-seconds of these cores, since the machine started, that were not idle, stolen ones included."""
    if not _STAT.exists():
        return None
    lines = dict(line.split(maxsplit=1) for line in _STAT.read_text().splitlines() if line.startswith("cpu"))
    ticks = 0
    for core in cores:
        user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(int, lines[f"cpu{core}"].split())
        ticks += user + nice + system + irq + softirq + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Core-seconds of this process and of its children that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
