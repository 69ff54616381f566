"""The event log: the only thing a run writes while it runs, and the only thing metrics read.

A request's life, in the order of a disaggregated system (a colocated one skips the middle):

    ARRIVED -> SENT -> ROUTED -> PREFILL_STARTED -> DISPATCHED -> RESERVED -> PREFILL_DONE
            -> TRANSFER_STARTED -> TRANSFER_DONE -> ADMITTED -> FINISHED

    FIRST_TOKEN, then TOKEN*, are deliveries to the client, which run beside the middle part;
    PREEMPTED may come between ADMITTED and FINISHED, and is followed by another ADMITTED; a colocated instance that
    mixes prompt chunks and decodes may also preempt a prompt that it has begun, before its first ADMITTED;
    PREDICTED comes between ROUTED and DISPATCHED, before or after PREFILL_STARTED;
    FAILED (with a reason) may come at any point instead of FINISHED: no request just disappears.
    RETRIED may come at any point before: after `restart` the request's life begins again at ROUTED, with the tokens
    that it has; after `resend` at DISPATCHED, because the prefill instance still holds its KV.

DISPATCHED comes at the end of the request's first chunk (paper section 3.3.4), which of a prompt of one chunk is also
PREFILL_DONE; RESERVED follows when the decode side has room, and TRANSFER_STARTED may come before PREFILL_DONE where
KV moves chunk by chunk. A response that ends with the token of a prefill joins no running batch: it has no ADMITTED
(or, after a preemption, no second one). Requests not yet due when a run fails have no event. Every duration in
`tetribench.metrics` is a difference of two of these edges.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

CLIENT = "client"
GLOBAL_SCHEDULER = "global_scheduler"


class EventKind(StrEnum):
    """What happened. The comment says who records it and which details it carries."""

    ARRIVED = "arrived"  # client, at the intended arrival; num_prompt_tokens, max_output_tokens, label,
    # sla_class
    SENT = "sent"  # client, when it was really sent; num_prompt_ids where there are any
    ROUTED = "routed"  # global scheduler; to
    PREDICTED = "predicted"  # prefill instance; low, high, duration_s (of the prediction that it shared with others)
    PREFILL_STARTED = "prefill_started"  # instance; start of the iteration that holds its first chunk
    PREFILL_DONE = "prefill_done"  # instance; its last chunk ended and its first token exists there
    DISPATCHED = (
        "dispatched"  # prefill instance; to, low, high; candidates (of each the load that the dispatcher saw: free
    )
    # tokens, heavy and light decodes, age in seconds); num_fitting, where the policy looks for memory
    RESERVED = "reserved"  # decode instance; its admission policy granted the KV blocks; num_blocks
    TRANSFER_STARTED = "transfer_started"  # prefill instance; first byte
    TRANSFER_DONE = "transfer_done"  # prefill instance; last byte, or PREFILL_DONE if later; to, num_bytes,
    # busy_s (time bytes were moving)
    ADMITTED = "admitted"  # instance; joined the running batch
    PREEMPTED = "preempted"  # instance; lost its KV blocks; how (`swap`, `recompute`), num_tokens, num_bytes (swapped)
    RETRIED = "retried"  # global scheduler or prefill instance; how (restart or resend), attempt, reason
    FIRST_TOKEN = "first_token"  # client; first token delivered
    TOKEN = "token"  # client; one more token delivered to each of `requests`
    TOKENS = "tokens"  # client; one token delivered to each of `requests` at each of times_s (virtual time)
    FINISHED = "finished"  # client; num_output_tokens
    FAILED = "failed"  # client; reason

    INSTANCE_STARTED = "instance_started"  # for the instance; provisioned from here; role
    INSTANCE_READY = "instance_ready"  # for the instance; role and the engine's facts (`EngineInfo`)
    INSTANCE_LOST = "instance_lost"  # for the instance; reason, num_restarted
    COUNTED = "counted"  # server, before it is stopped; what it says itself to have served since it was ready:
    # num_prompt_tokens, num_output_tokens (each once where prefill and decode are apart), num_preemptions,
    # kv_used_share (now)
    INSTANCE_STOPPED = "instance_stopped"  # for the instance; provisioned to here
    FLIP_STARTED = "flip_started"  # for the instance; role, to, reason, load_age_s
    FLIP_REFUSED = "flip_refused"  # for the instance; reason
    FLIPPED = "flipped"  # for the instance, when control knows; role, to, started_s, drain_s, overhead_s
    ITERATION = "iteration"  # instance, at its end; started_s, num_prefill_tokens, num_decode_tokens, num_used_blocks,
    # num_swapped_bytes (out and in); of `requests` the first are its chunks of prompts, the others decode;
    # where there are chunks: chunks (start and number of tokens of each), num_padding_tokens
    ITERATIONS = "iterations"  # instance, at the end of the last of several that compute the same decodes, of
    # `requests`, and nothing else (virtual time); started_s, ends_s and num_used_blocks of each, num_decode_tokens
    MEMORY_WAIT = "memory_wait"  # instance, when it ends; started_s, from when on there was nothing to run, because
    # all that is there waits for KV blocks
    TRANSFER = "transfer"  # prefill instance, at the end of one push, perhaps of one layer; started_s, num_bytes, to


@dataclass(slots=True)
class Event:
    """Something that happened at `time_s` to `requests` (most often one, for an iteration or a delivery several).

    Nobody changes it, but it is not frozen, which would treble what it takes to make one.
    """

    time_s: float
    kind: EventKind
    source: str
    requests: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class EventLog:
    """Append-only. With a `sink` (a file) it hands on events as they come; without one it keeps them all.

    Events of other processes arrive late, so the log is not sorted by time; readers sort.
    """

    sink: Callable[[Iterable[Event]], None] | None = None
    events: list[Event] = field(default_factory=list)

    def record(self, event: Event) -> None:
        self.extend((event,))

    def extend(self, events: Iterable[Event]) -> None:
        if self.sink is None:
            self.events += events
        else:
            self.sink(events)
