"""What a system is to the harness: something that serves requests, and a plan of the instances that it is made of."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any, Protocol

from tetribench.control.route import Router
from tetribench.core.messages import TokenOutput
from tetribench.core.request import Request
from tetribench.engine.base import EngineFactory
from tetribench.instance.launch import InstanceSpec

Deliver = Callable[[SequenceOf[TokenOutput]], None]
"""Called with the tokens that reach the client together."""

Fail = Callable[[Exception], None]
"""Called when the system cannot go on; the first call counts."""


class Serving(Protocol):
    """A running system as its client sees it."""

    async def start(self, deliver: Deliver, fail: Fail) -> dict[str, dict[str, Any]]:
        """Return when it is ready to serve, with the facts read back from each instance."""

    def submit(self, request: Request) -> None:
        """Send a request; its tokens come through `deliver`."""

    async def stop(self) -> None:
        """End it; may be called in any state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Instances of a system. `entries` are those that new requests go to; `decodes` those that receive KV."""

    instances: list[InstanceSpec]
    router: Router
    entries: list[str]
    decodes: list[str]
    broadcast_period_s: float


class System(Protocol):
    """A legend entry: says which instances it wants on `engine`."""

    def plan(self, engine: EngineFactory) -> Plan: ...
