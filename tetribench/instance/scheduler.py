"""What the loop asks of a scheduler: the one object in which prefill, decode and colocated instances differ."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from tetribench.core.events import Event, EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Message, TokenOutput, TokenRun
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.engine.base import Batch, EngineInfo
from tetribench.kv.transfer import Moved, Push


@dataclass(slots=True)
class Outbox:
    """What a scheduler wants done. It only writes here; the loop carries it out after each call."""

    name: str
    outputs: list[TokenOutput] = field(default_factory=list)
    runs: list[TokenRun] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    messages: list[tuple[str, Message]] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)

    def event(self, now_s: float, kind: EventKind, request_id: int, **details: Any) -> None:
        self.events.append(Event(now_s, kind, self.name, (request_id,), details))

    def send(self, to: str, message: Message) -> None:
        self.messages.append((to, message))


class Scheduler(Protocol):
    """Synchronous and deterministic: state, messages and `now_s` in; batches and an outbox out."""

    outbox: Outbox

    def receive(self, message: Message, now_s: float) -> None:
        """Take in a message from another instance or from the control plane."""

    def next_prediction(self) -> list[Request]:
        """Whose response lengths to predict next, together; nobody's when that has to wait until something comes."""

    def predicted(self, ranges: dict[int, LengthRange], started_s: float, now_s: float) -> None:
        """The requests of the last `next_prediction` have been predicted."""

    def next_batch(self, now_s: float) -> Batch | None:
        """What to run next; None when there is nothing to run until something is received."""

    def complete(self, batch: Batch, tokens: dict[int, int], now_s: float) -> None:
        """The batch of the last `next_batch` has run and yielded `tokens` (by request id)."""

    def num_steady_iterations(self) -> int:
        """For how many iterations, with the one in flight, every `next_batch` would be this one and `complete` would
        do no more than note its tokens, if nothing is received and no response stops early.

        Asked of a batch of decodes alone.
        """

    def advance(self, num_iterations: int) -> list[int]:
        """So many of the steady iterations have ended, each with token 0 for everyone, and the next has begun.

        Returns the KV blocks held in each of those that have begun.
        """

    def moved(self, moved: Moved) -> None:
        """A push has ended: its KV is at its target, or `moved.error` says why not."""

    def load(self, now_s: float) -> InstanceLoad:
        """For the cluster monitor."""

    @property
    def may_have_batch(self) -> bool:
        """False only if `next_batch` would return None and change nothing."""

    @property
    def num_used_blocks(self) -> int:
        """KV blocks held now, for the event log."""

    @property
    def lacks_memory(self) -> bool:
        """Somebody who is there waits for KV blocks; asked while there is nothing to run."""

    @property
    def is_drained(self) -> bool:
        """It holds nothing, and nothing is on its way to it: the instance could now be something else."""

    def check(self) -> None:
        """Assert the invariants of an idle scheduler: no block lost, nothing forgotten."""


class PredictsNothing:
    """The part of a scheduler that takes response lengths as they come."""

    def next_prediction(self) -> list[Request]:
        return []

    def predicted(self, ranges: dict[int, LengthRange], started_s: float, now_s: float) -> None:
        raise AssertionError("nothing was to be predicted")


class DecodesNothing:
    """The part of a scheduler whose batches are never decodes alone."""

    def num_steady_iterations(self) -> int:
        raise AssertionError("no batch of this scheduler stays as it is")

    def advance(self, num_iterations: int) -> list[int]:
        raise AssertionError("no batch of this scheduler stays as it is")


class SchedulerFactory(Protocol):
    """A light, picklable description of a scheduler, built once the engine has said how much KV memory it has."""

    def build(self, name: str, info: EngineInfo) -> Scheduler: ...
