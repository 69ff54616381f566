"""The cluster monitor: who is there, in which role, how loaded, and who is told (paper section 3.2)."""

from dataclasses import dataclass
from enum import StrEnum

from tetribench.core.load import InstanceLoad
from tetribench.core.roles import Role


class State(StrEnum):
    """Whether an instance gets new work."""

    serving = "serving"
    draining = "draining"


@dataclass(slots=True)
class Member:
    """An instance as the control plane knows it; `load` is as old as `load.time_s` says."""

    name: str
    role: Role
    load: InstanceLoad
    state: State = State.serving


class ClusterMonitor:
    """Pure state. A load that it hands out is as old as `time_s` in it says: staleness is part of the design."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}

    def add(self, name: str, role: Role, empty: InstanceLoad) -> None:
        """An instance has joined, or has become `role`; `empty` stands for its load until its first report."""
        self.members[name] = Member(name, role, empty)

    def remove(self, name: str) -> Member | None:
        """An instance has left, or is gone; None where it was no member."""
        return self.members.pop(name, None)

    def report(self, instance: str, load: InstanceLoad) -> None:
        """Keep the latest load; reports that were still on their way from an instance that is gone are dropped."""
        member = self.members.get(instance)
        if member is not None:
            member.load = load

    def emptied(self, name: str, now_s: float) -> InstanceLoad:
        """The load of a member that holds nothing."""
        num_tokens = self.members[name].load.num_total_tokens
        return InstanceLoad(time_s=now_s, num_total_tokens=num_tokens, num_free_tokens=num_tokens)

    def serving(self, role: Role) -> list[Member]:
        """Members of a role that get new work."""
        return [one for one in self.members.values() if one.role is role and one.state is State.serving]

    def named(self, role: Role) -> list[str]:
        """All members of a role, draining ones included."""
        return [one.name for one in self.members.values() if one.role is role]

    def broadcast(self) -> dict[str, InstanceLoad]:
        """The latest load of every decode instance that gets new work."""
        return {one.name: one.load for one in self.serving(Role.decode)}
