"""The control plane alone: what it is told, and what it wants done."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import load, request
from tetribench.control.flip import FlipPolicy, Idle, NoFlip
from tetribench.control.plane import ControlPlane
from tetribench.control.route import RoundRobin
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import (
    Broken,
    Close,
    Drain,
    Drained,
    Ended,
    LoadBroadcast,
    LoadReport,
    Lost,
    Message,
    Orphaned,
    Progress,
    Stop,
    Submit,
    TokenOutput,
)
from tetribench.core.roles import Role
from tetribench.instance.launch import InstanceFailed


class Told:
    """A control plane of `prefill-0`, `prefill-1`, `decode-0`, `decode-1` that does one thing after the other."""

    def __init__(self, *names: str, flip: FlipPolicy | None = None) -> None:
        self.plane = ControlPlane(RoundRobin(), flip or NoFlip())
        for name in names or ("prefill-0", "prefill-1", "decode-0", "decode-1"):
            self.plane.join(name, Role(name.partition("-")[0]), load(), 0.0)
        self.taken()

    def taken(self) -> list[tuple[str, Message]]:
        """What it wants sent, without the broadcasts."""
        found = [one for one in self.plane.outbox.messages if not isinstance(one[1], LoadBroadcast)]
        self.plane.outbox.messages.clear()
        return found

    def broadcasts(self) -> list[tuple[str, list[str]]]:
        """Who is told of which decode instances."""
        return [(to, list(one.loads)) for to, one in self.plane.outbox.messages if isinstance(one, LoadBroadcast)]

    def events(self, *kinds: EventKind) -> list[Event]:
        return [event for event in self.plane.outbox.events if event.kind in kinds]

    def submit(self, id: int, **others: Any) -> "Told":
        self.plane.submit(request(id, **others), 0.5)
        self.taken()
        return self

    def tell(self, message: Message, now_s: float = 1.0) -> list[tuple[str, Message]]:
        self.plane.receive(message, now_s)
        return self.taken()

    def hand_over(self, id: int, sender: str = "prefill-0", to: str = "decode-0", **others: Any) -> None:
        """The first token of request `id` exists, and its KV has been moved."""
        done = Event(1.0, EventKind.TRANSFER_DONE, sender, (id,), {"to": to})
        self.tell(Progress(sender, [output(id, **others)], [done]))


def output(id: int, index: int = 0, *, attempt: int = 1, is_last: bool = False) -> TokenOutput:
    return TokenOutput(id, attempt, index, 70 + index, is_last)


def test_a_request_goes_to_an_instance_and_that_is_on_record() -> None:
    told = Told()
    told.plane.submit(request(4), 2.5)
    assert told.taken() == [("prefill-0", Submit(request(4)))]
    (routed,) = told.events(EventKind.ROUTED)
    assert (routed.time_s, routed.requests, routed.details) == (2.5, (4,), {"to": "prefill-0"})


def test_requests_wait_while_no_instance_takes_any() -> None:
    told = Told("decode-0")
    told.plane.submit(request(4), 0.5)
    assert told.taken() == [] == told.events(EventKind.ROUTED)
    told.plane.join("prefill-0", Role.prefill, load(), 2.0)
    assert told.taken() == [("prefill-0", Submit(request(4)))]
    assert [event.time_s for event in told.events(EventKind.ROUTED)] == [2.0]


def test_who_joins_is_broadcast_at_once_and_loads_as_they_were_reported() -> None:
    told = Told("prefill-0", "decode-0")
    told.tell(LoadReport("decode-0", load(5, time_s=0.75)))
    told.plane.join("decode-1", Role.decode, load(time_s=1.0), 1.0)
    assert told.plane.outbox.messages == [
        ("prefill-0", LoadBroadcast({"decode-0": load(5, time_s=0.75), "decode-1": load(time_s=1.0)}))
    ]


def test_progress_is_passed_on() -> None:
    told, event = Told().submit(0), Event(0.9, EventKind.PREFILL_DONE, "prefill-0", (0,))
    told.tell(Progress("prefill-0", [output(0)], [event]))
    assert told.plane.outbox.outputs == [output(0)] and told.plane.outbox.events[-1] == event


def test_a_request_begins_again_with_its_delivered_tokens_when_its_decode_instance_is_lost() -> None:
    told = Told().submit(0).submit(1)
    told.hand_over(0)
    told.tell(Progress("decode-0", [output(0, 1)], []))
    found = told.tell(Broken("decode-0", "killed"), 2.0)
    others = ("prefill-0", "prefill-1", "decode-1")
    assert found[:3] == [(name, Lost("decode-0", {0: 2})) for name in others]
    assert found[3:] == [("prefill-0", Submit(request(0), 2, [70, 71]))]
    lost, retried = told.events(EventKind.INSTANCE_LOST, EventKind.RETRIED)
    assert (lost.source, lost.time_s, lost.details) == ("decode-0", 2.0, {"reason": "killed", "num_restarted": 1})
    assert retried.details == {"how": "restart", "attempt": 2, "reason": "decode-0 is gone"}


def test_nothing_that_a_lost_instance_sent_counts_afterwards() -> None:
    told = Told().submit(0)
    told.hand_over(0)
    told.tell(Broken("decode-0", "killed"))
    told.plane.outbox.outputs.clear()
    num_events = len(told.plane.outbox.events)
    late: list[Message] = [
        Progress("decode-0", [output(0, 1)], [Event(0.9, EventKind.ITERATION, "decode-0")]),
        Orphaned("decode-0", {0: 2}),
        Drained("decode-0", None, 0.0, 1.0),
        LoadReport("decode-0", load(3)),
        Broken("decode-0", "process ended with code -9"),
    ]
    assert [told.tell(message) for message in late] == [[]] * 5
    assert told.plane.outbox.outputs == [] and len(told.plane.outbox.events) == num_events


def test_what_is_on_a_lost_prefill_instance_begins_again_on_another() -> None:
    told = Told().submit(0).submit(1).submit(2)
    found = told.tell(Broken("prefill-0", "killed"))
    assert found[0] == ("prefill-1", Lost("prefill-0", {0: 2, 2: 2}))
    assert found[3:] == [("prefill-1", Submit(request(0), 2)), ("prefill-1", Submit(request(2), 2))]


def test_what_a_decode_instance_has_survives_the_loss_of_its_prefill_instance() -> None:
    told = Told().submit(0)
    told.hand_over(0)
    assert told.tell(Broken("prefill-0", "killed"))[0] == ("prefill-1", Lost("prefill-0", {}))
    assert told.events(EventKind.RETRIED) == []


def test_kv_that_was_moved_to_an_instance_that_is_gone_is_computed_again() -> None:
    """The news of the handover comes after that of the loss: they are from two instances."""
    told = Told().submit(0)
    assert Lost("decode-0", {}) in [message for _, message in told.tell(Broken("decode-0", "killed"))]
    told.hand_over(0)
    assert told.taken() == [] and [event.details["reason"] for event in told.events(EventKind.RETRIED)] == [
        "decode-0 is gone"
    ]
    assert told.plane.scheduler.table[0].attempt == 2


def test_a_handover_to_an_instance_that_is_gone_does_not_matter_to_a_response_that_has_ended() -> None:
    told = Told().submit(0)
    told.tell(Broken("decode-0", "killed"))
    told.hand_over(0, is_last=True)
    assert told.events(EventKind.RETRIED) == []


def test_orphans_begin_again() -> None:
    told = Told().submit(0).submit(1)
    told.hand_over(0)
    told.tell(Broken("prefill-0", "killed"))
    assert told.tell(Orphaned("decode-0", {0: 1})) == [("prefill-1", Submit(request(0), 2, [70]))]
    assert told.events(EventKind.RETRIED)[0].details["reason"] == "decode-0 cannot go on with it"


@pytest.mark.parametrize("attempts", [{0: 1}, {9: 1}])
def test_orphans_that_have_begun_again_or_ended_already_are_left_alone(attempts: dict[int, int]) -> None:
    told = Told().submit(0)
    told.tell(Broken("prefill-0", "killed"))
    assert told.tell(Orphaned("decode-0", attempts)) == []


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (("prefill-0", "decode-0"), "decode-0"),
        (("prefill-0", "decode-0"), "prefill-0"),
        (("colocated-0",), "colocated-0"),
    ],
)
def test_without_any_instance_of_a_role_the_run_has_failed(names: tuple[str, ...], lost: str) -> None:
    with pytest.raises(InstanceFailed, match=f"^{lost}: no memory$"):
        Told(*names).tell(Broken(lost, "no memory"))


def test_a_colocated_instance_is_enough() -> None:
    told = Told("colocated-0", "colocated-1").submit(0)
    assert told.tell(Broken("colocated-0", "killed")) == [
        ("colocated-1", Lost("colocated-0", {0: 2})),
        ("colocated-1", Submit(request(0), 2)),
    ]


def test_a_fault_of_the_control_plane_itself_ends_the_run() -> None:
    with pytest.raises(InstanceFailed, match=r"^KeyError: 3$"):
        Told().tell(Broken("control", "KeyError: 3"))


def test_a_message_for_someone_else_is_our_own_error() -> None:
    with pytest.raises(AssertionError, match="the control plane got"):
        Told().tell(Stop())


def test_a_role_that_has_lost_its_last_instance_gets_one_of_the_other_role() -> None:
    told = Told("prefill-0", "prefill-1", "decode-0")
    told.tell(LoadReport("prefill-0", load(400)))
    assert ("prefill-1", Drain(Role.decode, [])) in told.tell(Broken("decode-0", "killed"))
    (started,) = told.events(EventKind.FLIP_STARTED)
    assert started.details["reason"] == "no decode instance is left"


def test_while_somebody_drains_it_is_too_early_to_tell_that_a_role_is_lost() -> None:
    """decode-1 is to become a prefill instance when decode-0 dies: it flips back once it has done so."""
    told = Told("prefill-0", "decode-0", "decode-1")
    told.plane.flip("decode-1", 1.0)
    told.taken()
    assert told.tell(Broken("decode-0", "killed")) == [(name, Lost("decode-0")) for name in ("prefill-0", "decode-1")]
    assert told.tell(Drained("decode-1", Role.prefill, 1.0, 2.0)) == [("decode-1", Drain(Role.decode, []))]


def test_an_instance_that_leaves_last_of_all_fails_the_run() -> None:
    told = Told("prefill-0", "decode-0", "decode-1")
    told.plane.leave("decode-1", 1.0)
    told.tell(Broken("decode-0", "killed"))
    with pytest.raises(InstanceFailed, match=r"^decode-1: has left$"):
        told.tell(Drained("decode-1", None, 1.0, 2.0))


# --- flips ------------------------------------------------------------------------------------------------------------


def test_a_prefill_instance_flips() -> None:
    told = Told()
    told.tell(LoadReport("prefill-0", load(1000, time_s=0.25)))
    told.plane.flip("prefill-0", 1.0)
    assert told.taken() == [("prefill-0", Drain(Role.decode, []))]
    (started,) = told.events(EventKind.FLIP_STARTED)
    assert (started.source, started.time_s) == ("prefill-0", 1.0)
    assert started.details == {"role": "prefill", "to": "decode", "reason": "asked for", "load_age_s": 0.75}
    assert [told.submit(id).plane.scheduler.table[id].entry for id in range(2)] == ["prefill-1"] * 2

    told.plane.receive(Drained("prefill-0", Role.decode, 1.25, 3.25), 3.5)
    (flipped,) = told.events(EventKind.FLIPPED)
    assert flipped.details == {
        "role": "prefill", "to": "decode", "started_s": 1.0, "drain_s": 2.0, "overhead_s": 0.5
    }  # fmt: skip
    assert told.broadcasts() == [("prefill-1", ["prefill-0", "decode-0", "decode-1"])]
    assert told.plane.monitor.members["prefill-0"].load == load(1000, time_s=3.5)


def test_a_decode_instance_flips_once_every_prefill_instance_has_closed_its_way_there() -> None:
    told = Told()
    told.plane.flip("decode-0", 1.0)
    assert told.taken() == [
        ("prefill-0", Close("decode-0")),
        ("prefill-1", Close("decode-0")),
        ("decode-0", Drain(Role.prefill, ["prefill-0", "prefill-1"])),
    ]
    told.plane.broadcast()
    assert told.broadcasts() == [("prefill-0", ["decode-1"]), ("prefill-1", ["decode-1"])]
    told.plane.submit(request(0), 1.5)
    told.taken()
    told.plane.receive(Drained("decode-0", Role.prefill, 1.0, 2.0), 2.0)
    assert told.broadcasts() == [(name, ["decode-1"]) for name in ("prefill-0", "prefill-1", "decode-0")]
    assert told.plane.scheduler.submit(request(1))[0][0] == "prefill-0"  # by round robin decode-0, prefill-0, prefill-1


def test_a_prefill_instance_that_drains_is_asked_to_close_its_ways_too() -> None:
    told = Told("prefill-0", "prefill-1", "decode-0", "decode-1")
    told.plane.flip("prefill-1", 1.0)
    told.plane.flip("decode-0", 1.0)
    assert told.taken()[-1] == ("decode-0", Drain(Role.prefill, ["prefill-0", "prefill-1"]))


def test_a_waiting_request_goes_to_the_instance_that_has_become_a_prefill_instance() -> None:
    told = Told("prefill-0", "decode-0", "decode-1")
    told.tell(Broken("prefill-0", "killed"))
    told.submit(0)
    assert told.tell(Drained("decode-0", Role.prefill, 1.0, 2.0)) == [("decode-0", Submit(request(0)))]


def test_an_instance_leaves_when_it_is_empty_and_the_others_are_told() -> None:
    told = Told()
    told.plane.leave("decode-0", 1.0)
    assert told.taken()[-1] == ("decode-0", Drain(None, ["prefill-0", "prefill-1"]))
    assert told.plane.outbox.leaving == []
    found = told.tell(Drained("decode-0", None, 1.0, 2.0))
    assert found == [(name, Lost("decode-0")) for name in ("prefill-0", "prefill-1", "decode-1")]
    assert told.plane.outbox.leaving == ["decode-0"] and told.events(EventKind.INSTANCE_LOST) == []
    assert [event.details["to"] for event in told.events(EventKind.FLIP_STARTED, EventKind.FLIPPED)] == [None, None]


def test_a_colocated_instance_may_leave() -> None:
    told = Told("colocated-0", "colocated-1")
    told.plane.leave("colocated-0", 1.0)
    assert told.taken() == [("colocated-0", Drain(None, []))]


@pytest.mark.parametrize(
    ("names", "name", "reason"),
    [
        (("prefill-0", "decode-0", "decode-1"), "prefill-0", "it is the last prefill instance"),
        (("prefill-0", "prefill-1", "decode-0"), "decode-0", "it is the last decode instance"),
        (("prefill-0", "decode-0"), "decode-7", "there is no such instance"),
        (("colocated-0", "colocated-1"), "colocated-0", "a colocated instance has no other role"),
    ],
)
def test_a_flip_that_cannot_be_is_refused_with_the_reason(names: tuple[str, ...], name: str, reason: str) -> None:
    told = Told(*names)
    told.plane.flip(name, 1.0)
    (refused,) = told.events(EventKind.FLIP_REFUSED)
    assert (refused.source, refused.details["reason"]) == (name, reason) and told.taken() == []


def test_the_last_instance_may_not_leave_and_a_draining_one_not_again() -> None:
    told = Told("colocated-0", "colocated-1")
    for name in ("colocated-0", "colocated-0", "colocated-1"):
        told.plane.leave(name, 1.0)
    assert [event.details for event in told.events(EventKind.FLIP_REFUSED)] == [
        {"role": "colocated", "reason": "it is draining already"},
        {"role": "colocated", "reason": "it is the last colocated instance"},
    ]


def test_an_instance_that_drains_does_not_count_as_one_that_stays() -> None:
    told = Told("prefill-0", "decode-0", "decode-1")
    told.plane.flip("decode-0", 1.0)
    told.plane.flip("decode-1", 1.0)
    assert told.events(EventKind.FLIP_REFUSED)[0].details["reason"] == "it is the last decode instance"


def busy(told: Told, *names: str) -> None:
    for name in names:
        told.tell(LoadReport(name, replace(load(0), num_running=1)))


def test_the_policy_flips_one_instance_at_a_time() -> None:
    told = Told("prefill-0", "prefill-1", "prefill-2", "decode-0", flip=Idle(hold_s=1.0))
    busy(told, "decode-0")
    told.plane.watch(1.0)
    assert told.taken() == []
    told.plane.watch(2.0)
    assert told.taken() == [("prefill-0", Drain(Role.decode, []))]
    told.plane.watch(9.0)
    assert told.taken() == []
    told.tell(Drained("prefill-0", Role.decode, 2.0, 3.0), 9.0)
    busy(told, "prefill-0")
    told.plane.watch(9.5)
    assert told.taken() == [], "the time to hold begins again after a flip"
    told.plane.watch(10.5)
    assert told.taken() == [("prefill-1", Drain(Role.decode, []))]


def test_a_loss_starts_the_time_to_hold_again() -> None:
    told = Told("prefill-0", "prefill-1", "prefill-2", "decode-0", flip=Idle(hold_s=1.0))
    busy(told, "decode-0")
    told.plane.watch(1.0)
    told.tell(Broken("prefill-2", "killed"))
    told.plane.watch(2.0)
    assert told.taken() == []
    told.plane.watch(3.0)
    assert told.taken() == [("prefill-0", Drain(Role.decode, []))]


def test_a_request_that_fails_on_an_instance_is_told_to_the_client_once() -> None:
    told = Told("colocated-0", "colocated-1")
    told.plane.submit(request(0), 0.0)
    failed = Ended("colocated-0", 0, 1, "HTTP 500")
    for _ in range(2):
        told.plane.receive(failed, 1.0)
    assert told.plane.outbox.ended == [failed]


def test_nobody_believes_the_dead_that_a_request_has_failed() -> None:
    told = Told("colocated-0", "colocated-1")
    told.plane.submit(request(0), 0.0)
    told.plane.receive(Broken("colocated-0", "killed"), 1.0)
    told.plane.receive(Ended("colocated-0", 0, 2, "HTTP 500"), 1.0)
    assert told.plane.outbox.ended == [] and 0 in told.plane.scheduler.table
