"""The control plane as one state machine: messages in, messages out; whoever carries them owns clock and processes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tetribench.control.flip import OTHER, FlipPolicy, TransitionWatcher, is_last, rescuer
from tetribench.control.monitor import ClusterMonitor, Member, State
from tetribench.control.route import Router
from tetribench.control.scheduler import GlobalScheduler
from tetribench.core.events import GLOBAL_SCHEDULER, Event, EventKind
from tetribench.core.load import InstanceLoad
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
    Submit,
    TokenOutput,
    TokenRun,
)
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.instance.launch import InstanceFailed
from tetribench.instance.post import CONTROL


@dataclass(slots=True)
class ControlOutbox:
    """What the control plane wants done, in the order of the fields."""

    events: list[Event] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Instances that are gone."""
    outputs: list[TokenOutput] = field(default_factory=list)
    runs: list[TokenRun] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    messages: list[tuple[str, Message]] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    """Instances that hold nothing any more and are to be ended."""


class ControlPlane:
    """Global scheduler, cluster monitor and transition watcher together (paper sections 3.2 and 3.5).

    What was on an instance that is lost begins again: with its prompt and the tokens that were delivered, on another
    instance. The lost instance is shut out first, so that nothing it sent can be counted twice. A role that has lost
    its last instance gets one from the other role; where that is impossible, the run has failed.
    """

    def __init__(self, router: Router, flip: FlipPolicy) -> None:
        self.outbox = ControlOutbox()
        self.monitor = ClusterMonitor()
        self.scheduler = GlobalScheduler(router)
        self._watcher = TransitionWatcher(flip)
        self._drains: dict[str, float] = {}
        """When the instances that are draining were told to."""

    def submit(self, request: Request, now_s: float) -> None:
        """A request has come from a client."""
        self._send(self.scheduler.submit(request), now_s)

    def _send(self, submitted: Iterable[tuple[str, Submit]], now_s: float) -> None:
        for to, message in submitted:
            self._event(now_s, EventKind.ROUTED, GLOBAL_SCHEDULER, message.request.id, to=to)
            self.outbox.messages.append((to, message))

    def _event(self, now_s: float, kind: EventKind, source: str, *requests: int, **details: Any) -> None:
        self.outbox.events.append(Event(now_s, kind, source, requests, details))

    def join(self, name: str, role: Role, empty: InstanceLoad, now_s: float) -> None:
        """An instance is ready, or has become `role`; `empty` says how much it holds."""
        self.monitor.add(name, role, empty)
        self.broadcast()
        if role.takes_requests:
            self._send(self.scheduler.add_entry(name), now_s)

    def broadcast(self) -> None:
        """Tell every prefill instance the loads of the decode instances, as old as they are."""
        message = LoadBroadcast(self.monitor.broadcast())
        self.outbox.messages += [(name, message) for name in self.monitor.named(Role.prefill)]

    def receive(self, message: Message, now_s: float) -> None:
        """From an instance; raises InstanceFailed when the system cannot go on without one that is gone."""
        match message:  # the most frequent first, and their fields not by patterns, which take twice as long
            case Progress():
                if message.instance in self.monitor.members:  # else what it had has begun again elsewhere
                    self._progress(message, now_s)
            case LoadReport():
                self.monitor.report(message.instance, message.load)
            case Broken(instance, reason):
                self._lose(instance, reason, now_s)
            case Ended(instance) if instance in self.monitor.members:
                if self.scheduler.end(message):
                    self.outbox.ended.append(message)
            case Orphaned(instance, attempts) if instance in self.monitor.members:
                for request_id, attempt in attempts.items():
                    row = self.scheduler.table.get(request_id)
                    if row is not None and row.attempt == attempt:
                        self._restart(request_id, f"{instance} cannot go on with it", now_s)
            case Drained(instance) if instance in self.monitor.members:
                self._drained(message, now_s)
            case Ended() | Orphaned() | Drained():
                pass  # likewise from an instance that is gone
            case _:
                raise AssertionError(f"the control plane got {message}")

    def _progress(self, message: Progress, now_s: float) -> None:
        self.outbox.events += message.events
        if message.outputs:
            self.outbox.outputs += self.scheduler.take(message.outputs)
        for run in message.runs:
            self.outbox.runs.append(self.scheduler.take_run(run))
        for event in message.events:
            if event.kind is EventKind.TRANSFER_DONE:
                self._handed_over(event.requests[0], event.details["to"], now_s)

    def _handed_over(self, request_id: int, to: str, now_s: float) -> None:
        if to in self.monitor.members:
            self.scheduler.handed_over(request_id, to)
        elif request_id in self.scheduler.table:
            self._restart(request_id, f"{to} is gone", now_s)

    def _restart(self, request_id: int, reason: str, now_s: float) -> None:
        attempt = self.scheduler.table[request_id].attempt + 1
        details = {"how": "restart", "attempt": attempt, "reason": reason}
        self._event(now_s, EventKind.RETRIED, GLOBAL_SCHEDULER, request_id, **details)
        self._send(self.scheduler.restart(request_id), now_s)

    def _lose(self, name: str, reason: str, now_s: float) -> None:
        if name == CONTROL:
            raise InstanceFailed(reason)
        if self.monitor.remove(name) is None:
            return
        self._drains.pop(name, None)
        self._watcher.reset()
        self.scheduler.remove_entry(name)
        held = self.scheduler.held_by(name)
        self._event(now_s, EventKind.INSTANCE_LOST, name, reason=reason, num_restarted=len(held))
        self.outbox.lost.append(name)
        restarted = {request_id: self.scheduler.table[request_id].attempt + 1 for request_id in held}
        self._tell_all(Lost(name, restarted))
        for request_id in held:
            self._restart(request_id, f"{name} is gone", now_s)
        self._keep_both_roles(f"{name}: {reason}", now_s)

    def _tell_all(self, message: Message) -> None:
        self.outbox.messages += [(name, message) for name in self.monitor.members]

    def _keep_both_roles(self, reason: str, now_s: float) -> None:
        """After a loss: raise InstanceFailed, with this reason, where a role is without an instance for good."""
        roles = {one.role for one in self._serving()}
        if Role.colocated in roles or OTHER.keys() <= roles or self._drains:
            return  # while somebody drains it is too early to tell
        candidate = rescuer(self._serving())
        if candidate is None:
            raise InstanceFailed(reason)
        self._drain(self.monitor.members[candidate.name], candidate.reason, now_s)

    def _serving(self) -> list[Member]:
        return [one for one in self.monitor.members.values() if one.state is State.serving]

    def watch(self, now_s: float) -> None:
        """Let the flip policy look at the latest loads; one flip at a time."""
        if self._drains:
            return
        candidate = self._watcher.watch(self._serving(), now_s)
        if candidate is not None:
            self._drain(self.monitor.members[candidate.name], candidate.reason, now_s)

    def flip(self, name: str, now_s: float) -> None:
        """Flip an instance because the user says so; refused, with an event, where it is the last of its role."""
        self._change(name, leaves=False, now_s=now_s)

    def leave(self, name: str, now_s: float) -> None:
        """Let an instance finish what it holds and end; refused, with an event, where it is the last of its role."""
        self._change(name, leaves=True, now_s=now_s)

    def _change(self, name: str, *, leaves: bool, now_s: float) -> None:
        member = self.monitor.members.get(name)
        refusal = None
        if member is None:
            refusal = "there is no such instance"
        elif member.state is State.draining:
            refusal = "it is draining already"
        elif is_last(name, self._serving()):
            refusal = f"it is the last {member.role} instance"
        elif member.role is Role.colocated and not leaves:
            refusal = "a colocated instance has no other role"
        if refusal is not None or member is None:
            role = None if member is None else member.role
            self._event(now_s, EventKind.FLIP_REFUSED, name, role=role, reason=refusal)
        else:
            self._drain(member, "asked for", now_s, leaves=leaves)

    def _drain(self, member: Member, reason: str, now_s: float, *, leaves: bool = False) -> None:
        """Nothing new goes to `member`; it is told to finish what it has and to become the other role, or to leave."""
        name, to = member.name, None if leaves else OTHER[member.role]
        member.state = State.draining
        self._drains[name] = now_s
        age_s = now_s - member.load.time_s
        details = {"role": member.role, "to": to, "reason": reason, "load_age_s": age_s}
        self._event(now_s, EventKind.FLIP_STARTED, name, **details)
        senders = self.monitor.named(Role.prefill) if member.role is Role.decode else []
        self.scheduler.remove_entry(name)
        self.outbox.messages += [(sender, Close(name)) for sender in senders]
        self.outbox.messages.append((name, Drain(to, senders)))

    def _drained(self, message: Drained, now_s: float) -> None:
        name, member = message.instance, self.monitor.members[message.instance]
        started_s, drain_s = self._drains.pop(name), message.empty_s - message.notified_s
        times = {"started_s": started_s, "drain_s": drain_s, "overhead_s": now_s - started_s - drain_s}
        self._event(now_s, EventKind.FLIPPED, name, role=member.role, to=message.to, **times)
        self._watcher.reset()
        if message.to is None:
            self.monitor.remove(name)
            self._tell_all(Lost(name))
            self.outbox.leaving.append(name)
        else:
            self.join(name, message.to, self.monitor.emptied(name, now_s), now_s)
        self._keep_both_roles(f"{name}: has left", now_s)
