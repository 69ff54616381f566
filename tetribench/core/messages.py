"""Messages between the global scheduler and the instances. Plain data; every launcher can carry them."""

from dataclasses import dataclass, field
from typing import Any

from tetribench.core.events import Event
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange


@dataclass(frozen=True, slots=True)
class Submit:
    """Global scheduler to prefill (or colocated) instance: serve this."""

    request: Request


@dataclass(frozen=True, slots=True)
class Reserve:
    """Prefill to decode instance: make room for this request and tell `reply_to` where its KV goes."""

    request: Request
    predicted: LengthRange
    reply_to: str


@dataclass(frozen=True, slots=True)
class Granted:
    """Decode to prefill instance: the blocks that will hold the request's prompt, in order."""

    request_id: int
    block_ids: list[int]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Prefill to decode instance: all of the request's KV is in place; continue after `first_token_id`."""

    request_id: int
    first_token_id: int


@dataclass(frozen=True, slots=True)
class Released:
    """Prefill to decode instance: the request ended with its first token; drop its reservation."""

    request_id: int


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One produced token on its way to the client."""

    request_id: int
    token_id: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """Instance to global scheduler: what one iteration produced and what happened meanwhile."""

    instance: str
    outputs: list[TokenOutput] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Instance to cluster monitor, every reporting period."""

    instance: str
    load: InstanceLoad


@dataclass(frozen=True, slots=True)
class LoadBroadcast:
    """Cluster monitor to every prefill instance, every broadcast period: the decode instances' latest loads."""

    loads: dict[str, InstanceLoad]


@dataclass(frozen=True, slots=True)
class Ready:
    """Instance to launcher: the engine is up. `facts` are read back from it; `link_handle` lets peers reach its KV."""

    instance: str
    facts: dict[str, Any]
    link_handle: bytes


@dataclass(frozen=True, slots=True)
class Peers:
    """Launcher to instance: how to reach the KV of each peer, beside the peers that it knows."""

    link_handles: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Broken:
    """Instance to launcher: it cannot go on, for this reason."""

    instance: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Launcher to instance: end after the iteration in flight."""


Message = (
    Submit
    | Reserve
    | Granted
    | Arrived
    | Released
    | Progress
    | LoadReport
    | LoadBroadcast
    | Ready
    | Peers
    | Broken
    | Stop
)
