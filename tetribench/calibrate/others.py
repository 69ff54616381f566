"""How much of this process's cores other programs take, so that what they disturbed can be left out."""

import os
from pathlib import Path

BUSY_FIELDS = slice(0, 3), slice(5, 7)
"""Of a line of /proc/stat: user, nice and system, then the two kinds of interrupts; idle time lies between."""


class OtherPrograms:
    """CPU seconds of everything on these cores less those of this process and its descendants, between two looks."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._seen_s = self._others_s()

    def since_s(self) -> float:
        """CPU seconds of other programs since the last look; a kernel tick more or less."""
        before_s, self._seen_s = self._seen_s, self._others_s()
        return max(self._seen_s - before_s, 0.0)

    def _others_s(self) -> float:
        return (self._all_ticks() - self._own_ticks()) / self._ticks_per_s

    def _all_ticks(self) -> int:
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in (self._proc / "stat").read_text().splitlines()]
        fields = [[int(field) for field in line[1:]] for line in lines if line[0] in cores]
        return sum(sum(line[part]) for line in fields for part in BUSY_FIELDS)

    def _own_ticks(self) -> int:
        """Those of processes that have ended count while their parent, which is ours, still lives."""
        parents: dict[int, tuple[int, int]] = {}
        for folder in self._proc.glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            parents[int(folder.name)] = int(fields[1]), sum(int(field) for field in fields[11:15])
        own, found = {os.getpid()}, 0
        while len(own) > found:
            found = len(own)
            own |= {pid for pid, (parent, _) in parents.items() if parent in own}
        return sum(ticks for pid, (_, ticks) in parents.items() if pid in own)
