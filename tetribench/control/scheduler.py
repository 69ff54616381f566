"""The global scheduler: a request table, the choice of the first instance, the tokens' way back (section 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from tetribench.control.route import Outstanding, Router
from tetribench.core.messages import Ended, Submit, TokenOutput, TokenRun
from tetribench.core.request import Request


class Phase(StrEnum):
    """Where a request is, as far as its tokens tell."""

    prefill = "prefill"
    decode = "decode"


@dataclass(slots=True)
class TableEntry:
    """A row of the request table: arrival, phase and SLA class (section 3.2).

    The request carries its arrival and its SLA class (`request.sla_class`). Nothing here decides by the class, because
    the paper says that the table has it and not what for; it is there for a policy that would.

    `entry` is the instance that the request was sent to, `holder` the one that has its KV: the same, until that has
    handed it over. Both are None while no instance takes requests.
    """

    request: Request
    entry: str | None = None
    holder: str | None = None
    phase: Phase = Phase.prefill
    attempt: int = 1
    output_ids: list[int] = field(default_factory=list)
    """Tokens that have been delivered."""
    early: dict[int, TokenOutput] = field(default_factory=dict)
    """By index, tokens that have overtaken those before them, which another instance sent."""
    outstanding: Outstanding = field(default_factory=Outstanding)
    """Where this attempt counts."""
    num_queued_tokens: int = 0
    """What it counts for there while it waits for prefill."""


class GlobalScheduler:
    """Pure state: rows come in by `submit` and leave with the last token of their response.

    It never picks the decode instance; that is the dispatcher's decision on the prefill instance. Requests that come
    while no instance takes any wait here.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._num_routed = 0
        self._outstanding: dict[str, Outstanding] = {}
        self._waiting: list[int] = []
        self.table: dict[int, TableEntry] = {}

    def add_entry(self, name: str) -> list[tuple[str, Submit]]:
        """`name` takes requests from now on; those that have waited for one, and where they go."""
        self._outstanding[name] = Outstanding()
        waiting, self._waiting = self._waiting, []
        return [sent for request_id in waiting for sent in self._begin(request_id)]

    def remove_entry(self, name: str) -> None:
        """Send nothing more to `name`; what it has, it keeps."""
        self._outstanding.pop(name, None)

    def submit(self, request: Request) -> list[tuple[str, Submit]]:
        """Enter `request` into the table; where it goes, or nothing while it waits for an instance."""
        assert request.id not in self.table, f"request {request.id} was submitted twice"
        self.table[request.id] = TableEntry(request)
        return self._begin(request.id)

    def _begin(self, request_id: int) -> list[tuple[str, Submit]]:
        """An attempt begins, on whatever instance the router picks."""
        row = self.table[request_id]
        row.entry = row.holder = None
        row.outstanding = Outstanding()
        if not self._outstanding:
            self._waiting.append(request_id)
            return []
        name = self._router.choose(self._outstanding, self._num_routed)
        self._num_routed += 1
        row.entry = row.holder = name
        row.phase = Phase.prefill
        submitted = Submit(row.request, row.attempt, list(row.output_ids))
        row.outstanding, row.num_queued_tokens = self._outstanding[name], submitted.num_tokens
        row.outstanding.num_requests += 1
        row.outstanding.num_prompt_tokens += submitted.num_tokens
        return [(name, submitted)]

    def handed_over(self, request_id: int, to: str) -> None:
        """The KV of a request is on the decode instance `to`; a request that has ended is in no table any more."""
        row = self.table.get(request_id)
        if row is not None:
            row.holder = to

    def held_by(self, instance: str) -> list[int]:
        """Requests whose KV `instance` has."""
        return [request_id for request_id, row in self.table.items() if row.holder == instance]

    def restart(self, request_id: int) -> list[tuple[str, Submit]]:
        """Begin a request again, with the tokens that have been delivered; where it goes."""
        row = self.table[request_id]
        row.attempt += 1
        row.early = {}
        self._leave_queue(row)
        row.outstanding.num_requests -= 1
        return self._begin(request_id)

    def take(self, outputs: Iterable[TokenOutput]) -> list[TokenOutput]:
        """Follow tokens on their way back; returns those that may go on to the client now, in order.

        Messages of one instance keep their order, those of two may overtake each other: a token waits here for those
        before it. Tokens of an attempt that was given up are dropped.
        """
        ready: list[TokenOutput] = []
        for output in outputs:
            row = self.table.get(output.request_id)
            if row is None or output.attempt != row.attempt:
                continue
            row.early[output.index] = output
            while (following := row.early.pop(len(row.output_ids), None)) is not None:
                ready.append(following)
                self._note(row, following)
        return ready

    def take_run(self, run: TokenRun) -> TokenRun:
        """As `take`; tokens of a run, which nothing overtakes."""
        token_ids, known = [0] * len(run.times_s), list[TokenOutput]()
        for last in run.lasts:
            row = self.table.get(last.request_id)
            if row is None or row.attempt != last.attempt:
                continue
            row.output_ids += token_ids
            assert last.index == len(row.output_ids) - 1, "a run of tokens was overtaken"
            known.append(last)
            if last.is_last:
                self._end(row)
        return TokenRun(known, run.times_s)

    def end(self, ended: Ended) -> bool:
        """A response gets no further token; whether that is news, and not about an attempt that was given up."""
        row = self.table.get(ended.request_id)
        if row is None or row.attempt != ended.attempt:
            return False
        self._leave_queue(row)
        self._end(row)
        return True

    def _note(self, row: TableEntry, output: TokenOutput) -> None:
        """Keep the table and the loads by what one token tells."""
        row.output_ids.append(output.token_id)
        self._leave_queue(row)
        if output.is_last:
            self._end(row)

    def _end(self, row: TableEntry) -> None:
        """No token will come any more."""
        row.outstanding.num_requests -= 1
        del self.table[row.request.id]

    def _leave_queue(self, row: TableEntry) -> None:
        """The attempt no longer waits for prefill."""
        row.phase = Phase.decode
        row.outstanding.num_prompt_tokens -= row.num_queued_tokens
        row.num_queued_tokens = 0
