"""Tokens: asked for, sent, computed by the instances, delivered. What is counted in two places must agree."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan
from operator import itemgetter
from typing import NamedTuple

import pandas as pd

from tetribench.core.events import EventKind
from tetribench.core.request import Request
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.timeline import TokenTimes, is_finished

MAX_WRONG_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAudit:
    """Of prompts and of responses, tokens of the `num_requests` that finished without being begun again.

    `prompt_sent` is the token ids in the requests, None in virtual time, where only lengths are sent. A prompt that was
    computed again after a preemption counts once in `prompt_computed`.
    `num_wrong` requests have a prompt, or a response, that is not of the length asked for; a response that a stop token
    may end only must not be longer.
    """

    num_requests: int
    prompt_asked: int
    prompt_sent: int | None
    prompt_computed: int | None
    """None where instances are opaque and do not say it. One that counts itself counts all requests."""
    output_asked: int
    output_delivered: int
    may_stop: bool
    """Whether a stop token may end a response before its length."""
    num_stopped: int
    """Responses that a stop token ended before their length."""
    num_wrong: int
    wrong: list[str]
    """The first few of them, in words."""
    all_computed: int | None
    """Tokens of responses that the instances have computed for all requests; None where one was begun again, and
    some of them were computed twice, or where instances are opaque and do not say it."""
    all_delivered: int
    """Tokens that reached the client, of all requests."""
    num_unaccounted: int
    """By how much these two differ without a reason. Of a request that did not end tokens may be computed and never
    delivered."""


def token_audit(log: EventsByKind, requests: pd.DataFrame, times: TokenTimes, asked: Sequence[Request]) -> TokenAudit:
    """`requests` is the request table of the log, `times` its tokens; every request in it is one of `asked`."""
    chunks, recomputed = _chunks(log), _recomputed(log)
    opaque = _opaque(log)
    by_id = {request.id: request for request in asked}
    is_whole = is_finished(requests) & (requests["num_retries"] == 0)
    sent = log.columns(EventKind.SENT)
    num_sent = dict(zip(sent.requests.values.tolist(), sent.details["num_prompt_ids"].tolist(), strict=True))
    num_said = requests["num_output_tokens"].to_dict()
    rows = [
        _Counts(
            request=(request := by_id[id]),
            prompt_sent=None if isnan(num_sent[id]) else int(num_sent[id]),
            prompt_computed=(
                None if opaque else _num_computed(request.num_prompt_tokens, chunks[id], bool(recomputed[id]))
            ),
            output_delivered=len(times.get(id, ())),
            output_said=num_said[id],
        )
        for id in requests.index[is_whole].tolist()
    ]
    wrong = [row for row in rows if row.is_wrong]
    has_ids = any(row.prompt_sent is not None for row in rows)
    all_delivered, all_computed = len(times.times_s), None
    num_unaccounted, counted = 0, _counted(log, opaque)
    if not requests["num_retries"].any():
        if opaque:
            all_computed = None if counted is None else counted.num_output_tokens
        else:
            all_computed = _num_output_tokens(log, by_id, chunks, recomputed)
    if all_computed is not None:
        num_undelivered = all_computed - all_delivered
        num_unaccounted = abs(num_undelivered) if is_whole.all() else max(-num_undelivered, 0)
    return TokenAudit(
        num_requests=len(rows),
        prompt_asked=sum(row.request.num_prompt_tokens for row in rows),
        prompt_sent=sum(row.prompt_sent or 0 for row in rows) if has_ids else None,
        prompt_computed=(
            (None if counted is None else counted.num_prompt_tokens)
            if opaque
            else sum(row.prompt_computed or 0 for row in rows)
        ),
        output_asked=sum(row.request.max_output_tokens for row in rows),
        output_delivered=sum(row.output_delivered for row in rows),
        may_stop=any(request.natural_stop for request in asked),
        num_stopped=sum(row.is_stopped for row in rows),
        num_wrong=len(wrong),
        wrong=[row.in_words() for row in wrong[:MAX_WRONG_SHOWN]],
        all_computed=all_computed,
        all_delivered=all_delivered,
        num_unaccounted=num_unaccounted,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """The tokens of one request."""

    request: Request
    prompt_sent: int | None
    prompt_computed: int | None
    output_delivered: int
    output_said: int

    @property
    def is_stopped(self) -> bool:
        return self.request.natural_stop and 0 < self.output_delivered < self.request.max_output_tokens

    @property
    def is_wrong(self) -> bool:
        num_prompt = self.request.num_prompt_tokens
        is_prompt_right = self.prompt_sent in (num_prompt, None) and self.prompt_computed in (num_prompt, None)
        is_long_enough = self.is_stopped or self.output_delivered == self.request.max_output_tokens
        return not (is_prompt_right and is_long_enough and self.output_said == self.output_delivered)

    def in_words(self) -> str:
        sent = "" if self.prompt_sent is None else f", {self.prompt_sent} sent"
        computed = "" if self.prompt_computed is None else f", {self.prompt_computed} computed"
        return (
            f"request {self.request.id}: prompt of {self.request.num_prompt_tokens} tokens{sent}{computed}; "
            f"response of {self.request.max_output_tokens}, "
            f"{self.output_delivered} delivered, {self.output_said} reported"
        )


class _Counted(NamedTuple):
    """What opaque instances say that they have computed."""

    num_prompt_tokens: int
    num_output_tokens: int


def _opaque(log: EventsByKind) -> set[str]:
    """Instances that do not tell of their iterations."""
    return {event.source for event in log[EventKind.INSTANCE_READY] if event.details.get("is_opaque")}


def _counted(log: EventsByKind, opaque: set[str]) -> _Counted | None:
    """By all of them together; None where one has not said it."""
    found = {event.source: event.details for event in log[EventKind.COUNTED]}
    if not opaque or not opaque <= found.keys():
        return None
    return _Counted(*(sum(found[name][field] for name in opaque) for field in _Counted._fields))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Of a prompt, computed up to `end` by `time_s`."""

    time_s: float
    start: int
    end: int


Chunks = defaultdict[int, list[_Chunk]]
Targets = defaultdict[int, list[tuple[float, int]]]
"""By request, when it lost its KV, and how many tokens had to be computed again from then on."""


def _chunks(log: EventsByKind) -> Chunks:
    found: Chunks = defaultdict(list)
    iterations = log.columns(EventKind.ITERATION)
    chunks = iterations.lists["chunks"]
    requests, times_s = iterations.requests.values[iterations.owners(chunks)], iterations.time_s[chunks.events]
    for request, time_s, (start, size) in zip(requests.tolist(), times_s.tolist(), chunks.values.tolist(), strict=True):
        found[request].append(_Chunk(time_s, start, start + size))
    return found


def _recomputed(log: EventsByKind) -> Targets:
    found: Targets = defaultdict(list)
    for event in log[EventKind.PREEMPTED]:
        if event.details["how"] == "recompute":
            found[event.requests[0]].append((event.time_s, event.details["num_tokens"]))
    return found


def _num_computed(num_asked: int, chunks: Sequence[_Chunk], is_recomputed: bool) -> int:
    """Prompt tokens that were computed at least once: a prefix that came out of a cache is missing here."""
    if is_recomputed:
        return max((chunk.end for chunk in chunks if chunk.end <= num_asked), default=0)
    return sum(chunk.end - chunk.start for chunk in chunks)


def _num_output_tokens(log: EventsByKind, asked: dict[int, Request], chunks: Chunks, recomputed: Targets) -> int:
    """A decode yields a token in each iteration. A chunk yields one where it reaches the end of what is known: of the
    prompt, or of prompt and response so far once these have to be computed again."""
    single, runs = log.columns(EventKind.ITERATION), log.columns(EventKind.ITERATIONS)
    num_decoded = int(single.details["num_decode_tokens"].sum())
    num_decoded += int(runs.details["num_decode_tokens"] @ runs.lists["ends_s"].sizes)
    num_prefilled = 0
    for request, found in chunks.items():
        targets = [(-inf, asked[request].num_prompt_tokens), *recomputed[request]]
        for chunk in found:
            _, target = targets[bisect_left(targets, chunk.time_s, key=itemgetter(0)) - 1]
            num_prefilled += chunk.end == target
    return num_decoded + num_prefilled
