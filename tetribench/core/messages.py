"""Messages between the global scheduler and the instances. Plain data; every launcher can carry them."""

from dataclasses import dataclass, field
from typing import Any

from tetribench.core.events import Event
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.core.sequence import LengthRange


@dataclass(frozen=True, slots=True)
class Submit:
    """Global scheduler to prefill (or colocated) instance: serve this.

    A request that starts again, because the instance that held it is gone, is attempt 2 and so on; its first
    `output_ids` have been delivered and are computed again like a prompt.
    """

    request: Request
    attempt: int = 1
    output_ids: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return self.request.num_prompt_tokens + len(self.output_ids)


@dataclass(frozen=True, slots=True)
class Reserve:
    """Prefill to decode instance: make room for this request and tell `sender` where its KV goes.

    `ticket` names the handover among the sender's; a request that is sent once more has a new one.
    """

    sender: str
    ticket: int
    request: Request
    attempt: int
    output_ids: list[int]
    predicted: LengthRange


@dataclass(frozen=True, slots=True)
class Granted:
    """Decode to prefill instance: the blocks that will hold the KV of what was reserved, in order."""

    ticket: int
    block_ids: list[int]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Prefill to decode instance: all of the KV is in place; continue after `token_id`."""

    sender: str
    ticket: int
    token_id: int


@dataclass(frozen=True, slots=True)
class Released:
    """Prefill to decode instance: nothing will come on this ticket; drop its reservation."""

    sender: str
    ticket: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Control to everyone: `instance` is gone. The requests in `restarted` begin again as the attempt that it maps to;
    whatever is held of an earlier attempt is to be dropped."""

    instance: str
    restarted: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Orphaned:
    """Instance to control: requests (and their attempts) that it cannot go on with, because the prefill instance that
    had their KV is gone, or because it drains itself and no decode instance takes them."""

    instance: str
    attempts: dict[int, int]


@dataclass(frozen=True, slots=True)
class Close:
    """Control to prefill instance: dispatch nothing more to `decode` and tell it so."""

    decode: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Prefill to decode instance: `sender` will reserve nothing more."""

    sender: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Control to instance: finish what you hold, then become `to`, or leave where that is None (paper section 3.5).

    A decode instance has everything once each of `senders` has said `Closed`.
    """

    to: Role | None
    senders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drained:
    """Instance to control: it holds nothing any more and is now what `Drain` asked for."""

    instance: str
    to: Role | None
    notified_s: float
    empty_s: float


@dataclass(slots=True)
class TokenOutput:
    """One produced token, the `index`-th of its response, on its way to the client.

    Not frozen: there is one for every token, and freezing trebles what it takes to make one.
    """

    request_id: int
    attempt: int
    index: int
    token_id: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Instance to control, and on to the client: the response gets no further token. With a `reason` the request has
    failed; without one a server has said so only after the last token."""

    instance: str
    request_id: int
    attempt: int
    reason: str | None = None


@dataclass(slots=True)
class TokenRun:
    """Token 0 for each of some requests at each of `times_s`, from a batch that stays the same (virtual time).

    `lasts` are those at the last of these times, one for each request; those before them have the indices before.
    """

    lasts: list[TokenOutput]
    times_s: list[float]


@dataclass(slots=True)
class Progress:
    """Instance to global scheduler: what one iteration, or a run of them, produced and what happened meanwhile."""

    instance: str
    outputs: list[TokenOutput] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    runs: list[TokenRun] = field(default_factory=list)


@dataclass(slots=True)
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
    | Lost
    | Orphaned
    | Close
    | Closed
    | Drain
    | Drained
    | Progress
    | Ended
    | LoadReport
    | LoadBroadcast
    | Ready
    | Peers
    | Broken
    | Stop
)
