"""The prefill instance's way out: from a prompt's first chunk until its KV is on a decode instance (section 3.3.4)."""

import itertools

from tetribench.core.events import EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Arrived, Orphaned, Released, Reserve
from tetribench.core.seeds import Generator
from tetribench.core.sequence import Sequence
from tetribench.instance.post import CONTROL
from tetribench.instance.scheduler import Outbox
from tetribench.kv.blocks import BlockAllocator
from tetribench.kv.transfer import Granularity, Handover, Moved
from tetribench.prefill.dispatch import Dispatcher
from tetribench.prefill.view import LoadView

MAX_LINK_FAILURES = 3
"""A request whose KV could not be sent so often ends the instance: the fault is taken to be on this side."""


class Handovers:
    """Dispatches sequences, asks for room, pushes their KV and gives back their blocks when it has arrived.

    A sequence that no decode instance can be chosen for (all have gone or are draining) waits here until a broadcast
    names one; on an instance that drains, it is given back to control instead. When the decode instance is lost or the
    link to it fails, the KV is still here: the sequence is dispatched again, on a new ticket, to another instance where
    there is one. A ticket that was given up lives on until no copy of it is under way, because its target blocks must
    not be granted to others before.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        kv: BlockAllocator,
        num_layers: int,
        dispatcher: Dispatcher,
        granularity: Granularity,
        rng: Generator,
    ) -> None:
        self._outbox = outbox
        self._kv = kv
        self._num_layers = num_layers
        self._dispatcher = dispatcher
        self._granularity = granularity
        self._rng = rng
        self._view = LoadView()
        self._tickets = itertools.count()
        self._undispatched: list[tuple[Sequence, int]] = []
        """With the tokens whose KV is to be handed over."""
        self._is_draining = False
        self._open: dict[int, Handover] = {}
        """By ticket: on their way, or given up with a copy still under way."""
        self._current: dict[int, Handover] = {}
        """By request: on its way."""
        self._computing: dict[int, int] = {}
        """By request, up to which position the iteration that runs, or is about to, computes it."""
        self._failed: list[Handover] = []
        """Whose link failed since the last broadcast."""
        self._ended: set[int] = set()
        """Requests whose response ended here while a copy may still read their blocks."""
        self._num_failures: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._open) + len(self._undispatched)

    def update_loads(self, loads: dict[str, InstanceLoad], now_s: float) -> None:
        """A broadcast came; who could not be dispatched before may be now.

        Bytes that were on their way when a link failed are taken to have landed or to be lost by now.
        """
        self._view.update(loads)
        if self._failed:
            failed, self._failed = self._failed, []
            for handover in failed:
                self._close_if_idle(handover)
        if self._undispatched:
            waiting, self._undispatched = self._undispatched, []
            for sequence, num_kv_tokens in waiting:
                self.dispatch(sequence, num_kv_tokens, now_s)

    def drain(self) -> None:
        """Keep nothing that cannot be handed over: the instance is to become something else."""
        self._is_draining = True
        self._give_back()

    def _give_back(self) -> None:
        if not self._is_draining:
            return
        done = [one for one, num_kv_tokens in self._undispatched if one.num_computed >= num_kv_tokens]
        for sequence in done:
            self._outbox.send(CONTROL, Orphaned(self._outbox.name, {sequence.request.id: sequence.attempt}))
            self.cancel(sequence)

    def close(self, decode: str) -> None:
        """Dispatch nothing more to `decode`; what is on its way there goes on."""
        self._view.forget(decode)

    def lose(self, instance: str, now_s: float) -> None:
        """A decode instance is gone: what was on its way there goes elsewhere."""
        self._view.forget(instance)
        for handover in [one for one in self._failed if one.to == instance]:
            self._failed.remove(handover)
            self._close_if_idle(handover)
        for handover in [one for one in self._current.values() if one.to == instance]:
            self._give_up(handover)
            self._retry(handover, f"{instance} is gone", now_s)

    def dispatch(self, sequence: Sequence, num_kv_tokens: int, now_s: float, avoid: str | None = None) -> None:
        """Choose a decode instance for a sequence whose first chunk is done; `num_kv_tokens` are to be handed over."""
        request, predicted = sequence.request, sequence.predicted
        loads = {name: load for name, load in self._view.loads.items() if name != avoid}
        if not loads:
            self._undispatched.append((sequence, num_kv_tokens))
            self._give_back()
            return
        choice = self._dispatcher.choose(request, predicted, loads, self._rng)
        self._outbox.event(
            now_s,
            EventKind.DISPATCHED,
            request.id,
            to=choice.to,
            candidates={name: _seen(loads[name], now_s) for name in choice.candidates},
            low=predicted.low,
            high=predicted.high,
            **({} if choice.num_fitting is None else {"num_fitting": choice.num_fitting}),
        )
        self._view.note_dispatch(choice.to, num_kv_tokens, predicted)
        ticket = next(self._tickets)
        handover = Handover(sequence, choice.to, ticket, num_kv_tokens, self._granularity, self._kv.block_size)
        self._open[ticket] = self._current[request.id] = handover
        known_ids = sequence.output_ids[: num_kv_tokens - request.num_prompt_tokens]
        reserve = Reserve(self._outbox.name, ticket, request, sequence.attempt, known_ids, predicted)
        self._outbox.send(choice.to, reserve)

    def granted(self, ticket: int, block_ids: list[int]) -> None:
        """The decode instance has made room; for a ticket that was given up, `Released` is on its way to it."""
        handover = self._open.get(ticket)
        if handover is not None:
            handover.target_ids = block_ids
            self._push(handover)
            self._push_layers(handover)

    def compute(self, sequence: Sequence, num_computed: int) -> None:
        """The next iteration computes `sequence` up to `num_computed`: its layers may leave as they are computed."""
        self._computing[sequence.request.id] = num_computed
        handover = self._current.get(sequence.request.id)
        if handover is not None:
            self._push_layers(handover)

    def computed(self) -> None:
        """The iteration has ended."""
        self._computing.clear()

    def push(self, sequence: Sequence, now_s: float) -> None:
        """Send what is ready of a sequence that has come further; all of it may be there already, layer by layer."""
        handover = self._current.get(sequence.request.id)
        if handover is not None:
            self._push(handover)
            self._finish(handover, now_s)
        else:
            self._give_back()

    def _push(self, handover: Handover) -> None:
        push = handover.next_push()
        if push is not None:
            self._outbox.pushes.append(push)

    def _push_layers(self, handover: Handover) -> None:
        """Of the blocks that the running iteration, or the one about to run, completes."""
        num_computed = self._computing.get(handover.sequence.request.id)
        if num_computed is not None:
            self._outbox.pushes += handover.pushes_of_layers(num_computed, self._num_layers)

    def cancel(self, sequence: Sequence) -> None:
        """The response has ended here: nothing is to be handed over."""
        self._ended.add(sequence.request.id)
        self._undispatched = [one for one in self._undispatched if one[0] is not sequence]
        handover = self._current.get(sequence.request.id)
        if handover is not None:
            self._give_up(handover)
        self._release_if_unused(sequence)

    def moved(self, moved: Moved) -> None:
        """A push has ended."""
        push = moved.push
        handover = self._open[push.ticket]
        if handover.num_moved_bytes == 0 and moved.error is None:
            self._outbox.event(moved.started_s, EventKind.TRANSFER_STARTED, push.request_id)
        handover.moved(moved)
        if handover.is_cancelled:
            self._close_if_idle(handover)
        elif moved.error is not None:
            self._fail(handover, moved.error, moved.ended_s)
        else:
            self._finish(handover, moved.ended_s)

    def _fail(self, handover: Handover, error: str, now_s: float) -> None:
        request_id = handover.sequence.request.id
        self._num_failures[request_id] = self._num_failures.get(request_id, 0) + 1
        if self._num_failures[request_id] >= MAX_LINK_FAILURES:
            raise RuntimeError(f"request {request_id}: its KV could not be sent {MAX_LINK_FAILURES} times: {error}")
        self._failed.append(handover)
        self._give_up(handover)
        self._retry(handover, error, now_s)

    def _retry(self, handover: Handover, reason: str, now_s: float) -> None:
        sequence = handover.sequence
        details = {"how": "resend", "attempt": sequence.attempt, "reason": reason}
        self._outbox.event(now_s, EventKind.RETRIED, sequence.request.id, **details)
        self.dispatch(sequence, handover.num_kv_tokens, now_s, avoid=handover.to)

    def _give_up(self, handover: Handover) -> None:
        handover.is_cancelled = True
        del self._current[handover.sequence.request.id]
        self._close_if_idle(handover)

    def _close_if_idle(self, handover: Handover) -> None:
        """Let the decode side have its blocks back once no copy touches them."""
        if not handover.num_in_flight and handover not in self._failed:
            self._outbox.send(handover.to, Released(self._outbox.name, handover.ticket))
            del self._open[handover.ticket]
            self._release_if_unused(handover.sequence)

    def _release_if_unused(self, sequence: Sequence) -> None:
        """Give back the blocks of a sequence whose response has ended here, once no copy reads them."""
        if sequence.request.id in self._ended and all(one.sequence is not sequence for one in self._open.values()):
            self._ended.remove(sequence.request.id)
            self._kv.release(sequence)

    def _finish(self, handover: Handover, now_s: float) -> None:
        """Once all of its KV has arrived and its last chunk has ended, whichever comes later."""
        if handover.is_cancelled or not handover.has_arrived or not handover.is_prefilled:
            return
        sequence, request_id = handover.sequence, handover.sequence.request.id
        details = {"to": handover.to, "num_bytes": handover.num_moved_bytes, "busy_s": handover.busy_s}
        self._outbox.event(now_s, EventKind.TRANSFER_DONE, request_id, **details)
        self._outbox.send(handover.to, Arrived(self._outbox.name, handover.ticket, sequence.output_ids[-1]))
        del self._open[handover.ticket], self._current[request_id]
        self._num_failures.pop(request_id, None)
        self._kv.release(sequence)


def _seen(load: InstanceLoad, now_s: float) -> list[float]:
    """What of a load a dispatcher goes by, and how old it is."""
    return [load.num_free_tokens, load.num_heavy, load.num_light, now_s - load.time_s]
