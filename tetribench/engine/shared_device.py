"""A device in virtual time that is used at once: by instances, and by an engine and a length predictor of one instance
(paper section 3.3.2); and a machine whose devices are used at once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tetribench.core.clock import Clock


class SharedDevice:
    """One instance's hold on a device: by default its own, with `share` also that of others; and its place on a
    machine, likewise with `stand_beside`.

    Instances with something to run take turns in slices too short to see, as processes on a GPU or on a core do: of n,
    each runs n times as slow, and together they get exactly what one would. Nothing is gained where one waits for
    memory and another computes, and nothing lost in changing over.

    Instances on different devices of one machine are each `beside_slowdown` times as slow while any other of them runs:
    they share caches, memory and what serves them.

    Within an instance whatever runs beside something else is `slowdown` times as slow, for as long as the other one
    runs. Both of the paper's numbers follow from that: a chunk beside a predictor that never pauses takes `slowdown`
    times as long (0.25 s for 0.152 s), and on average iterations lose little, because a prediction is much shorter than
    one (the text: 80 % of them unaffected, 10 % more on average).
    """

    def __init__(self, clock: Clock, slowdown: float, rank: int = 0, beside_slowdown: float = 1.0) -> None:
        """`rank` is this device's among all, for what ends on several at the same moment."""
        self._clock = clock
        self.rank = rank
        self.slowdown = slowdown
        self.beside_slowdown = beside_slowdown
        self.place = object()
        """The same for those who share a device."""
        self._jobs = _Jobs(clock)

    def share(self, other: "SharedDevice") -> None:
        """Be one device with `other`, of another instance; nothing runs yet."""
        self.stand_beside(other)
        self.place = other.place

    def stand_beside(self, other: "SharedDevice") -> None:
        """Be on one machine with `other`, of another instance; nothing runs of this one yet."""
        assert not self._jobs.running and self._jobs.num_instances == 1, "a device is placed before it is used"
        self._jobs = other._jobs
        self._jobs.num_instances += 1

    async def run(self, seconds: float) -> None:
        """Something that takes `seconds` by itself; of an instance at most two, an iteration and a prediction."""
        job = _Job(self, seconds)
        self._jobs.begin(job)
        while self._clock.now() < job.ends_s:  # an end moves away when something else begins, and never comes closer
            await self._clock.sleep_until(job.ends_s, self.rank)
        self._jobs.end(job)

    @property
    def is_undisturbed(self) -> bool:
        """Whether what begins now will take its own time: nothing runs, and no other instance can begin anything."""
        return not self._jobs.running and self._jobs.num_instances == 1


@dataclass(slots=True, eq=False)
class _Job:
    holder: SharedDevice
    left_s: float
    """What it would still take by itself."""
    slowness: float = 1.0
    """How many times as long it takes beside those that run now."""
    ends_s: float = 0.0


class _Jobs:
    """All that runs on a machine, and how far it has come."""

    def __init__(self, clock: Clock) -> None:
        self.num_instances = 1
        self.running: list[_Job] = []
        self._clock = clock
        self._updated_s = 0.0

    def begin(self, job: _Job) -> None:
        self._advance()
        self.running.append(job)
        num_own = sum([other.holder is job.holder for other in self.running])
        assert num_own <= 2, "only one iteration and one prediction share an instance"
        self._plan()

    def end(self, job: _Job) -> None:
        self._advance()
        self.running.remove(job)
        self._plan()

    def _advance(self) -> None:
        """Count what has been done since the jobs last changed."""
        now_s = self._clock.now()
        for job in self.running:
            job.left_s = max(job.left_s - (now_s - self._updated_s) / job.slowness, 0.0)
        self._updated_s = now_s

    def _plan(self) -> None:
        """How slow each job is now, and when it ends if nothing else begins: one after the other, the rest then
        faster."""
        if len(self.running) < 2:  # by far the most frequent
            for job in self.running:
                job.slowness, job.ends_s = 1.0, max(self._updated_s + job.left_s, job.ends_s)
            return
        slowness = _slowness(self.running)
        for job in self.running:
            job.slowness = slowness[job]
        end_s, left_s = self._updated_s, {job: job.left_s for job in self.running}
        while left_s:
            first = min(left_s, key=lambda job: left_s[job] * slowness[job])
            done_s = left_s.pop(first)
            end_s += done_s * slowness[first]
            first.ends_s = max(end_s, first.ends_s)
            for job in left_s:
                left_s[job] = max(left_s[job] - done_s * (slowness[first] / slowness[job]), 0.0)
            slowness = _slowness(left_s)


def _slowness(jobs: Collection[_Job]) -> dict[_Job, float]:
    """How many times as long each takes while all of them run."""
    if len(jobs) < 2:
        return dict.fromkeys(jobs, 1.0)
    num_jobs: dict[SharedDevice, int] = {}
    for job in jobs:
        num_jobs[job.holder] = num_jobs.get(job.holder, 0) + 1
    num_sharing: dict[object, int] = {}
    for holder in num_jobs:
        num_sharing[holder.place] = num_sharing.get(holder.place, 0) + 1
    return {job: _slowness_of(job.holder, num_jobs[job.holder], num_sharing) for job in jobs}


def _slowness_of(holder: SharedDevice, num_own: int, num_sharing: Mapping[object, int]) -> float:
    within = holder.slowdown if num_own > 1 else 1.0
    beside = holder.beside_slowdown if len(num_sharing) > 1 else 1.0
    return num_sharing[holder.place] * within * beside
