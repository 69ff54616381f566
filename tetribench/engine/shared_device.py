"""A device in virtual time that an engine and a length predictor use at once (paper section 3.3.2)."""

from dataclasses import dataclass

from tetribench.core.clock import Clock


@dataclass(slots=True, eq=False)
class _Job:
    left_s: float
    """What it would still take by itself."""
    ends_s: float


class SharedDevice:
    """Whatever runs beside something else is `slowdown` times as slow, for as long as the other one runs.

    Both of the paper's numbers follow from that: a chunk beside a predictor that never pauses takes `slowdown` times as
    long (0.25 s for 0.152 s), and on average iterations lose little, because a prediction is much shorter than one (the
    text: 80 % of them unaffected, 10 % more on average).
    """

    def __init__(self, clock: Clock, slowdown: float, rank: int = 0) -> None:
        """`rank` is this device's among all, for what ends on several at the same moment."""
        self._clock = clock
        self.rank = rank
        self._slowdown = slowdown
        self._jobs: list[_Job] = []
        self._updated_s = 0.0

    async def run(self, seconds: float) -> None:
        """Something that takes `seconds` by itself; at most two at a time, an iteration and a prediction."""
        job = _Job(seconds, 0.0)
        self._advance()
        self._jobs.append(job)
        assert len(self._jobs) <= 2, "only one iteration and one prediction share a device"
        self._plan()
        while self._clock.now() < job.ends_s:  # an end moves away when something else begins, and never comes closer
            await self._clock.sleep_until(job.ends_s, self.rank)
        self._advance()
        self._jobs.remove(job)
        self._plan()

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def _advance(self) -> None:
        """Count what has been done since the jobs last changed."""
        now_s = self._clock.now()
        done_s = (now_s - self._updated_s) / (self._slowdown if len(self._jobs) > 1 else 1.0)
        for job in self._jobs:
            job.left_s = max(job.left_s - done_s, 0.0)
        self._updated_s = now_s

    def _plan(self) -> None:
        """When each job ends if nothing else begins: slowed until the shorter one has ended, then by itself."""
        shared_s = min((job.left_s for job in self._jobs), default=0.0) if len(self._jobs) > 1 else 0.0
        for job in self._jobs:
            ends_s = self._updated_s + shared_s * self._slowdown + (job.left_s - shared_s)
            job.ends_s = max(ends_s, job.ends_s)
