"""When an instance becomes the other kind (paper section 3.5): pluggable policies, and the watcher that applies them.

A policy says who could flip now; the watcher says who does: one instance at a time, after it was a candidate for
`hold_s` without a break, and never the last of its role. The paper leaves open whether an instance flips into a side
that has nothing to do either: here it does not, because nobody would gain.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Protocol

from tetribench.control.monitor import Member
from tetribench.core.roles import Role

OTHER = {Role.prefill: Role.decode, Role.decode: Role.prefill}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that could flip, and why in words."""

    name: str
    reason: str


class FlipPolicy(Protocol):
    hold_s: float
    """How long an instance must have been a candidate."""

    def candidates(self, members: SequenceOf[Member]) -> list[Candidate]:
        """Of the serving `members`, those that could flip, the best first."""


class NoFlip:
    """Roles stay as they are."""

    hold_s = 0.0

    def candidates(self, members: SequenceOf[Member]) -> list[Candidate]:
        return []


class _Held:
    def __init__(self, hold_s: float) -> None:
        if hold_s < 0:
            raise ValueError(f"control.flip.hold_s={hold_s}: must not be negative")
        self.hold_s = hold_s


class LowLoad(_Held):
    """An instance whose load is under `share` (the paper's example: 10 % for a minute).

    The load of a prefill instance is the share of time in which it computed, because compute is what it runs out of;
    that of a decode instance is the share of its KV memory that is held or asked for.
    """

    def __init__(self, *, share: float = 0.1, hold_s: float = 60.0) -> None:
        super().__init__(hold_s)
        if not 0.0 < share <= 1.0:
            raise ValueError(f"control.flip.share={share}: must be above 0 and at most 1")
        self.share = share

    def candidates(self, members: SequenceOf[Member]) -> list[Candidate]:
        loads = {one.name: _load(one) for one in members}
        low = [one for one in members if loads[one.name] < self.share]
        return [
            Candidate(one.name, f"load {loads[one.name]:.0%} is under {self.share:.0%}")
            for one in sorted(low, key=lambda one: (loads[one.name], one.name))
            if any(peer.role is not one.role and peer not in low for peer in members)
        ]


def _load(member: Member) -> float:
    if member.role is Role.decode:
        return member.load.used_share
    return max(member.load.busy_share, float(member.load.num_waiting > 0))


class Idle(_Held):
    """An instance that has nothing to do (the paper's evaluation: for a minute)."""

    def __init__(self, *, hold_s: float = 60.0) -> None:
        super().__init__(hold_s)

    def candidates(self, members: SequenceOf[Member]) -> list[Candidate]:
        idle = [one for one in members if one.load.is_idle]
        return [
            Candidate(one.name, "idle")
            for one in sorted(idle, key=lambda one: one.name)
            if any(peer.role is not one.role and peer not in idle for peer in members)
        ]


class QueueRatio(_Held):
    """The side whose queue is short gives an instance to the side whose queue is `ratio` times as long.

    A queue is the requests that wait for prefill, or for KV memory on a decode instance, per instance of the side; of
    the short side one request is counted in any case. The instance with the least to do goes first.
    """

    def __init__(self, *, ratio: float = 4.0, hold_s: float = 1.0) -> None:
        super().__init__(hold_s)
        if ratio <= 1.0:
            raise ValueError(f"control.flip.ratio={ratio}: must be above 1")
        self.ratio = ratio

    def candidates(self, members: SequenceOf[Member]) -> list[Candidate]:
        queues = {role: self._queue(role, members) for role in OTHER}
        for role, other in OTHER.items():
            if queues[other] >= self.ratio * max(queues[role], 1.0):
                reason = (
                    f"{queues[other]:.1f} requests wait on each {other} instance, {queues[role]:.1f} on each {role} one"
                )
                own = sorted((one for one in members if one.role is role), key=_work_left)
                return [Candidate(one.name, reason) for one in own]
        return []

    def _queue(self, role: Role, members: SequenceOf[Member]) -> float:
        waiting = [one.load.num_waiting for one in members if one.role is role]
        return sum(waiting) / len(waiting) if waiting else 0.0


def _work_left(member: Member) -> tuple[int, int, str]:
    load = member.load
    return load.num_queued_tokens, load.num_total_tokens - load.num_free_tokens, member.name


class TransitionWatcher:
    """Remembers since when each instance has been a candidate; owns no clock."""

    def __init__(self, policy: FlipPolicy) -> None:
        self._policy = policy
        self._since_s: dict[str, float] = {}

    def watch(self, members: SequenceOf[Member], now_s: float) -> Candidate | None:
        """Whoever of the serving `members` is to flip now. Start over with `reset` once it does."""
        candidates = self._policy.candidates(members)
        self._since_s = {one.name: self._since_s.get(one.name, now_s) for one in candidates}
        for candidate in candidates:
            if now_s - self._since_s[candidate.name] >= self._policy.hold_s and not is_last(candidate.name, members):
                return candidate
        return None

    def reset(self) -> None:
        """Forget all candidacies: who does what has changed."""
        self._since_s = {}


def is_last(name: str, members: SequenceOf[Member]) -> bool:
    """Whether `name` is the only one of its role among the serving `members`: at least one of each role stays."""
    role = next(one.role for one in members if one.name == name)
    return sum(one.role is role for one in members) == 1


def rescuer(members: SequenceOf[Member]) -> Candidate | None:
    """Whoever flips into a role that has lost its last instance, whatever the policy: the one with the least to do.

    None where both roles have one, or where the other role has but one itself.
    """
    for role, other in OTHER.items():
        own = sorted((one for one in members if one.role is role), key=_work_left)
        if len(own) > 1 and not any(one.role is other for one in members):
            return Candidate(own[0].name, f"no {other} instance is left")
    return None
