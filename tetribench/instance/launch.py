"""The fourth seam: where instances live. A launcher starts them, carries their messages, and ends them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tetribench.core.messages import Message, Ready
from tetribench.engine.base import EngineFactory, PredictorFactory
from tetribench.engine.predictor import NothingToPredict
from tetribench.instance.scheduler import SchedulerFactory
from tetribench.kv.links import LinkSpeed

NOTHING_TO_PREDICT = NothingToPredict()


class Role(StrEnum):
    prefill = "prefill"
    decode = "decode"
    colocated = "colocated"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """Everything an instance is made of, light and picklable. `index` counts the instances of a system from 0."""

    name: str
    index: int
    role: Role
    scheduler: SchedulerFactory
    engine: EngineFactory
    link: LinkSpeed
    report_period_s: float
    predictor: PredictorFactory = NOTHING_TO_PREDICT


class InstanceFailed(RuntimeError):
    """An instance cannot go on; the message says which, and why as far as it is known."""


class Launcher(Protocol):
    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        """Start every instance and return when all are ready; from then on `on_message` gets what they send to
        control, and `Broken` for one that dies. Raises InstanceFailed if one does not come up; `stop` ends all."""

    def send(self, to: str, message: Message) -> None:
        """Hand `message` to the instance named `to`; never waits."""

    async def stop(self) -> None:
        """End every instance; none is left behind, whatever state it is in. May be called twice."""
