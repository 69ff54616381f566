from typing import Any

import pytest

from tetribench.control.flip import Candidate, FlipPolicy, Idle, LowLoad, NoFlip, QueueRatio, TransitionWatcher, rescuer
from tetribench.control.flip import is_last as is_the_last
from tetribench.control.monitor import Member
from tetribench.core.load import InstanceLoad
from tetribench.core.roles import Role


def member(name: str, *, used: float = 0.0, **load: Any) -> Member:
    """`p0` is a prefill instance, `d0` a decode instance; `used` is the share of its KV memory."""
    role = {"p": Role.prefill, "d": Role.decode, "c": Role.colocated}[name[0]]
    free = round(1000 * (1 - used))
    return Member(name, role, InstanceLoad(time_s=0.0, num_total_tokens=1000, num_free_tokens=free, **load))


def names(policy: FlipPolicy, *members: Member) -> list[str]:
    return [one.name for one in policy.candidates(members)]


BUSY = {"p": member("p9", busy_share=0.9), "d": member("d9", used=0.9, num_running=5, busy_share=0.9)}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("p0", busy_share=0.09), BUSY["p"], BUSY["d"]], ["p0"]),
        ([member("p0", busy_share=0.1), BUSY["d"]], []),
        ([member("p0", busy_share=0.0, num_waiting=1), BUSY["d"]], []),
        ([member("p0", used=0.9), BUSY["d"]], ["p0"]),
        ([member("d0", used=0.05, busy_share=0.9), BUSY["p"]], ["d0"]),
        ([member("d0", used=0.1), BUSY["p"]], []),
        ([member("d0", used=0.05), BUSY["d"]], []),
        ([member("d0", used=0.05), member("p0", busy_share=0.05)], []),
        ([member("d1", used=0.05), member("d0", used=0.05), member("d2", used=0.01), BUSY["p"]], ["d2", "d0", "d1"]),
    ],
    ids=[
        "a prefill instance that hardly computes",
        "the share itself is not low",
        "a prefill instance where somebody waits has load",
        "KV that nobody takes is no load of a prefill instance",
        "a decode instance that is nearly empty, however long its iterations",
        "the share itself is not low for decode",
        "nobody of the other side needs help",
        "a side that has nothing to do either gains nothing",
        "the lowest first, then by name",
    ],
)
def test_low_load(members: list[Member], expected: list[str]) -> None:
    assert names(LowLoad(share=0.1), *members) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("p0"), BUSY["d"]], ["p0"]),
        ([member("d1"), member("d0"), BUSY["p"]], ["d0", "d1"]),
        ([member("p0", num_waiting=1), BUSY["d"]], []),
        ([member("p0", num_running=1), BUSY["d"]], []),
        ([member("p0", busy_share=0.01), BUSY["d"]], []),
        ([member("p0"), member("d0")], []),
        ([member("p0"), BUSY["p"]], []),
    ],
    ids=[
        "nothing to do",
        "by name",
        "somebody waits",
        "somebody runs",
        "something ran since the last report",
        "the other side is idle too",
        "there is no other side",
    ],
)
def test_idle(members: list[Member], expected: list[str]) -> None:
    assert names(Idle(), *members) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("p0"), member("d0", num_waiting=4)], ["p0"]),
        ([member("p0"), member("d0", num_waiting=3)], []),
        ([member("p0", num_waiting=4), member("d0")], ["d0"]),
        ([member("p0", num_waiting=2), member("d0", num_waiting=8)], ["p0"]),
        ([member("p0", num_waiting=2), member("d0", num_waiting=7)], []),
        ([member("p0"), member("d0", num_waiting=7), member("d1")], []),
        ([member("p0"), member("d0", num_waiting=8), member("d1")], ["p0"]),
        (
            [
                member("p0", num_queued_tokens=5),
                member("p1", used=0.2),
                member("p3"),
                member("p2"),
                member("d0", num_waiting=9),
            ],
            ["p2", "p3", "p1", "p0"],
        ),
        ([member("d0", num_waiting=9)], []),
    ],
    ids=[
        "an empty queue counts as one request",
        "not yet so many times as long",
        "the other way round",
        "ratio of two queues",
        "just under the ratio",
        "a queue is per instance of its side",
        "just at the ratio per instance",
        "who has the least to prefill, then to hold, goes first",
        "a side without an instance has none to give",
    ],
)
def test_queue_ratio(members: list[Member], expected: list[str]) -> None:
    assert names(QueueRatio(ratio=4.0), *members) == expected


def test_a_candidate_says_why() -> None:
    assert NoFlip().candidates([member("p0"), BUSY["d"]]) == []
    found = [
        policy.candidates([member("p0"), member("d0", used=1.0, num_waiting=4, num_running=1)])[0].reason
        for policy in (LowLoad(), Idle(), QueueRatio())
    ]
    assert found == [
        "load 0% is under 10%",
        "idle",
        "4.0 requests wait on each decode instance, 0.0 on each prefill one",
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LowLoad(share=0.0), r"^control\.flip\.share=0\.0: must be above 0 and at most 1$"),
        (lambda: LowLoad(share=1.1), r"^control\.flip\.share=1\.1: must be above 0 and at most 1$"),
        (lambda: QueueRatio(ratio=1.0), r"^control\.flip\.ratio=1\.0: must be above 1$"),
        (lambda: Idle(hold_s=-1.0), r"^control\.flip\.hold_s=-1\.0: must not be negative$"),
    ],
)
def test_policies_that_cannot_work_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


class Named:
    """Candidates by name, as told."""

    def __init__(self, hold_s: float, *names: str) -> None:
        self.hold_s = hold_s
        self.names = list(names)

    def candidates(self, members: Any) -> list[Candidate]:
        return [Candidate(name, "told") for name in self.names]


FOUR = [member(name) for name in ("p0", "p1", "d0", "d1")]


def test_who_has_been_a_candidate_for_so_long_flips() -> None:
    watcher = TransitionWatcher(Named(2.0, "p0"))
    assert [watcher.watch(FOUR, now_s) for now_s in (1.0, 2.9)] == [None, None]
    assert watcher.watch(FOUR, 3.0) == Candidate("p0", "told")


def test_a_break_starts_the_time_again() -> None:
    policy = Named(2.0, "p0")
    watcher = TransitionWatcher(policy)
    watcher.watch(FOUR, 0.0)
    policy.names = []
    watcher.watch(FOUR, 1.0)
    policy.names = ["p0"]
    assert [watcher.watch(FOUR, now_s) is None for now_s in (1.5, 3.0, 3.5)] == [True, True, False]


def test_after_a_reset_all_start_again() -> None:
    watcher = TransitionWatcher(Named(2.0, "p0"))
    watcher.watch(FOUR, 0.0)
    watcher.reset()
    assert [watcher.watch(FOUR, now_s) is None for now_s in (2.0, 3.9, 4.0)] == [True, True, False]


def test_the_best_candidate_that_has_waited_long_enough_flips() -> None:
    policy = Named(2.0, "p0")
    watcher = TransitionWatcher(policy)
    watcher.watch(FOUR, 0.0)
    policy.names = ["p1", "p0"]
    assert watcher.watch(FOUR, 2.0) == Candidate("p0", "told")
    assert watcher.watch(FOUR, 4.0) == Candidate("p1", "told")


def test_without_a_time_to_hold_it_flips_at_once() -> None:
    assert TransitionWatcher(Named(0.0, "d1")).watch(FOUR, 7.0) == Candidate("d1", "told")


def test_the_last_of_a_role_never_flips_and_the_next_candidate_does() -> None:
    watcher = TransitionWatcher(Named(0.0, "p0", "d1"))
    assert watcher.watch([FOUR[0], *FOUR[2:]], 0.0) == Candidate("d1", "told")
    assert TransitionWatcher(Named(0.0, "p0")).watch([FOUR[0], *FOUR[2:]], 0.0) is None
    assert is_the_last("p0", [FOUR[0], *FOUR[2:]]) and not is_the_last("d0", FOUR)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("p0", num_queued_tokens=3), member("p1", used=0.1), member("p2", used=0.2)], "p1"),
        ([member("d0", used=0.3), member("d1", used=0.1)], "d1"),
        ([member("p0")], None),
        (FOUR, None),
        ([member("c0"), member("c1")], None),
        ([], None),
    ],
    ids=["into decode", "into prefill", "one cannot be both", "nobody is missing", "colocated have no sides", "nobody"],
)
def test_who_flips_into_a_role_that_has_lost_its_last_instance(members: list[Member], expected: str | None) -> None:
    found = rescuer(members)
    assert (found and found.name) == expected
