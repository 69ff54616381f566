"""The global scheduler: a request table, the choice of the first instance, the tokens' way back (section 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from tetribench.control.route import Outstanding, Router
from tetribench.core.messages import TokenOutput
from tetribench.core.request import Request


class Phase(StrEnum):
    """Where a request is, as far as its tokens tell."""

    prefill = "prefill"
    decode = "decode"


@dataclass(slots=True)
class TableEntry:
    """A row of the request table."""

    request: Request
    instance: str
    phase: Phase = Phase.prefill
    early: list[TokenOutput] = field(default_factory=list)
    """Tokens of the decode instance that have overtaken the first token, which another instance sent."""


class GlobalScheduler:
    """Pure state: rows come in by `route` and leave with the last token of their response.

    It never picks the decode instance; that is the dispatcher's decision on the prefill instance.
    """

    def __init__(self, router: Router, instances: list[str]) -> None:
        self._router = router
        self._num_routed = 0
        self._outstanding = {name: Outstanding() for name in instances}
        self.table: dict[int, TableEntry] = {}

    def route(self, request: Request) -> str:
        """Enter `request` into the table; the instance that it goes to."""
        assert request.id not in self.table, f"request {request.id} was submitted twice"
        instance = self._router.choose(self._outstanding, self._num_routed)
        self._num_routed += 1
        self.table[request.id] = TableEntry(request, instance)
        outstanding = self._outstanding[instance]
        outstanding.num_requests += 1
        outstanding.num_prompt_tokens += request.num_prompt_tokens
        return instance

    def take(self, instance: str, outputs: Iterable[TokenOutput]) -> list[TokenOutput]:
        """Follow tokens of `instance` on their way back; returns those that may go on to the client now, in order.

        Messages of one instance keep their order, those of two may overtake each other: a token of the decode instance
        waits here for the first token, which comes from the prefill instance.
        """
        ready: list[TokenOutput] = []
        for output in outputs:
            entry = self.table[output.request_id]
            if entry.phase is Phase.prefill and instance != entry.instance:
                entry.early.append(output)
            else:
                ready += [output, *entry.early]
                entry.early = []
        for output in ready:
            self.note_output(output)
        return ready

    def note_output(self, output: TokenOutput) -> None:
        """Keep the table and the loads by what one token tells."""
        entry = self.table[output.request_id]
        outstanding = self._outstanding[entry.instance]
        if entry.phase is Phase.prefill:
            entry.phase = Phase.decode
            outstanding.num_prompt_tokens -= entry.request.num_prompt_tokens
        if output.is_last:
            outstanding.num_requests -= 1
            del self.table[output.request_id]
