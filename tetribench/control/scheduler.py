"""The global scheduler: a request table, the choice of the first instance, the tokens' way back (section 3.2)."""

from dataclasses import dataclass
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


class GlobalScheduler:
    """Pure state: rows come in by `route` and leave with the last token of their response.

    It never picks the decode instance; that is the dispatcher's decision on the prefill instance.
    """

    def __init__(self, router: Router, instances: list[str]) -> None:
        self._router = router
        self._outstanding = {name: Outstanding() for name in instances}
        self.table: dict[int, TableEntry] = {}

    def route(self, request: Request) -> str:
        """Enter `request` into the table; the instance that it goes to."""
        assert request.id not in self.table, f"request {request.id} was submitted twice"
        instance = self._router.choose(self._outstanding)
        self.table[request.id] = TableEntry(request, instance)
        outstanding = self._outstanding[instance]
        outstanding.num_requests += 1
        outstanding.num_prompt_tokens += request.num_prompt_tokens
        return instance

    def note_output(self, output: TokenOutput) -> None:
        """Follow a token on its way back to the client."""
        entry = self.table[output.request_id]
        outstanding = self._outstanding[entry.instance]
        if entry.phase is Phase.prefill:
            entry.phase = Phase.decode
            outstanding.num_prompt_tokens -= entry.request.num_prompt_tokens
        if output.is_last:
            outstanding.num_requests -= 1
            del self.table[output.request_id]
