"""The fourth seam: where instances live. A launcher starts them, carries their messages, and ends them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tetribench.core.clock import Clock
from tetribench.core.messages import Message, Ready
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory, EngineInfo, PredictorFactory
from tetribench.engine.sharing import Sharing
from tetribench.instance.scheduler import SchedulerFactory
from tetribench.kv.links import Medium


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """Everything an instance is made of, light and picklable. `index` counts the instances of a system from 0, and
    `device` its devices, one of which several instances may have as `sharing` says.

    `schedulers` has one for each role that it can have; `role` is the first.
    """

    name: str
    index: int
    device: int
    sharing: Sharing
    role: Role
    schedulers: dict[Role, SchedulerFactory]
    engine: EngineFactory
    link: Medium
    report_period_s: float
    predictor: PredictorFactory

    def facts(self, info: EngineInfo) -> dict[str, Any]:
        """What a run records of the instance: its engine, how it shares its device, the link that its KV leaves by."""
        link = {} if self.role is Role.colocated else {"link": self.link.name}
        return {**info.as_dict(), "sharing": self.sharing.in_words, **link}


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

    def catch_up(self) -> None:
        """Deliver at once what instances hold back of runs of iterations (virtual time)."""

    def kill(self, name: str) -> None:
        """End an instance at once, in the middle of whatever it does; `Broken` follows."""

    async def leave(self, name: str) -> None:
        """End an instance that holds nothing any more; nothing where it is gone already."""

    async def stop(self) -> None:
        """End every instance; none is left behind, whatever state it is in. May be called twice."""


class LauncherFactory(Protocol):
    def build(self, clock: Clock, log_folder: Path, num_at_start: int) -> Launcher:
        """A fresh launcher for one serving; what instances print goes to `log_folder`. Once it has started, the first
        `num_at_start` requests come at once."""
