"""What a system is to the harness: something that serves requests, and a plan of the instances that it is made of."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Any, Protocol

from tetribench.control.churn import Action, Step
from tetribench.control.flip import FlipPolicy, NoFlip
from tetribench.control.route import Router
from tetribench.core.messages import Ended, TokenOutput, TokenRun
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.engine.base import EngineFactory, PredictorFactory
from tetribench.engine.sharing import Sharing
from tetribench.instance.launch import InstanceSpec, LauncherFactory
from tetribench.instance.scheduler import SchedulerFactory
from tetribench.kv.links import Medium

Deliver = Callable[[SequenceOf[TokenOutput], SequenceOf[TokenRun], SequenceOf[Ended]], None]
"""Called with the tokens that reach the client together; in virtual time also with runs of them, which did so over
some time; then with the responses that end without another token, most often because they have failed."""

Fail = Callable[[Exception], None]
"""Called when the system cannot go on; the first call counts."""


class Serving(Protocol):
    """A running system as its client sees it."""

    async def start(self, deliver: Deliver, fail: Fail) -> dict[str, dict[str, Any]]:
        """Return when it is ready to serve, with the facts read back from each instance."""

    def submit(self, request: Request) -> None:
        """Send a request; its tokens come through `deliver`."""

    def catch_up(self) -> None:
        """Deliver the tokens of runs that are still going on, as far as they have come."""

    async def stop(self) -> None:
        """End it; may be called in any state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a system is made of: `num_instances` of each role, what each role runs, and who leads them.

    Each instance has a device of its own; with `sharing` the first of every role have one together, and so on.
    """

    num_instances: dict[Role, int]
    schedulers: dict[Role, SchedulerFactory]
    engine: EngineFactory
    predictor: PredictorFactory
    link: Medium
    router: Router
    report_period_s: float
    broadcast_period_s: float
    flip: FlipPolicy = field(default_factory=NoFlip)
    churn: SequenceOf[Step] = ()
    sharing: Sharing = Sharing.none
    launch: LauncherFactory | None = None
    """Starts its instances where the runtime does not, because they are servers of others in real time."""

    @property
    def num_devices(self) -> int:
        """Each of as many pieces of hardware as the engine takes."""
        return len({spec.device for spec in self.instances})

    @property
    def most_devices(self) -> int:
        """With those of the instances that will come; what one that leaves had is not given to another."""
        return self.num_devices + sum(step.action is Action.add for step in self.churn)

    @property
    def num_sharing(self) -> int:
        """Instances on the device that has most."""
        return max(Counter(spec.device for spec in self.instances).values())

    @property
    def instances(self) -> list[InstanceSpec]:
        """Those that the system starts with, by role."""
        roles = [(role, number) for role, count in self.num_instances.items() for number in range(count)]
        return [self.instance(role, number, index) for index, (role, number) in enumerate(roles)]

    def instance(self, role: Role, number: int, index: int) -> InstanceSpec:
        """The `number`-th of its role and the `index`-th of all. On a shared device the roles have their parts in the
        order of `num_instances`."""
        part = list(self.num_instances).index(role)
        return InstanceSpec(
            name=f"{role}-{number}",
            index=index,
            device=index if self.sharing is Sharing.none else number,
            sharing=self.sharing,
            role=role,
            schedulers=self.schedulers,
            engine=self.engine if self.sharing is Sharing.none else self.engine.in_part(part),
            predictor=self.predictor,
            link=self.link,
            report_period_s=self.report_period_s,
        )


class System(Protocol):
    """A legend entry: says which instances it wants on `engine`."""

    def plan(self, engine: EngineFactory) -> Plan: ...
