"""The fourth seam: where instances live. A launcher starts them, carries their messages, and ends them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tetribench.core.messages import Message, Ready
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory
from tetribench.instance.scheduler import SchedulerFactory
from tetribench.kv.links import LinkSpeed


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """Everything an instance is made of, light and picklable. `index` counts the instances of a system from 0.

    `schedulers` has one for each role that it can have; `role` is the first.
    """

    name: str
    index: int
    role: Role
    schedulers: dict[Role, SchedulerFactory]
    engine: EngineFactory
    link: LinkSpeed
    report_period_s: float


class InstanceFailed(RuntimeError):
    """An instance cannot go on; the message says which, and why as far as it is known."""


class Launcher(Protocol):
    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        """Start every instance and return when all are ready; from then on `on_message` gets what they send to
        control, and `Broken` for one that dies. Raises InstanceFailed if one does not come up; `stop` ends all."""

    async def join(self, spec: InstanceSpec) -> Ready:
        """Start one more instance beside those that run; they know each other when this returns. Raises InstanceFailed
        if it does not come up; the others go on."""

    def send(self, to: str, message: Message) -> None:
        """Hand `message` to the instance named `to`; never waits. What is sent to one that is gone is dropped."""

    def kill(self, name: str) -> None:
        """End an instance at once, in the middle of whatever it does; `Broken` follows."""

    async def leave(self, name: str) -> None:
        """End an instance that holds nothing any more; nothing where it is gone already."""

    async def stop(self) -> None:
        """End every instance; none is left behind, whatever state it is in. May be called twice."""
