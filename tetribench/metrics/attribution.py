"""To whom the time of the iterations goes: the requests in a batch share it, by their tokens in it.

A chunk counts with its prompt tokens, a decode with one. So nothing of an iteration is left over, whoever is alone in a
batch pays for all of it, and what a request pays depends on its company, as it does for the operator. In a mixed batch
a decoded token needs about the arithmetic of a prompt token and reads more KV; which of both bounds the iteration
differs from batch to batch, and counting tokens takes no side. Padding is shared like the rest, and what is computed
again after a preemption or a loss is paid again.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.metrics.columns import Columns, EventsByKind

SHARES = ("prefill_busy_s", "decode_busy_s", "busy_device_s")
"""Columns of the request table: its shares of iterations as prefill and as decode, and of both times the devices."""

_SLICE = 50_000
"""Iterations are taken in slices of so many, which bounds the memory for their members."""


class Attribution(NamedTuple):
    """`shares` has a row for each request and the columns `SHARES`; `unattributed_s` is of iterations without requests,
    which only swap KV."""

    shares: pd.DataFrame
    unattributed_s: float


class _Part(NamedTuple):
    """Some iterations, or runs of iterations with one batch: how long each took, on how many devices, for whom."""

    seconds: npt.NDArray[np.float64]
    num_devices: npt.NDArray[np.float64]
    num_requests: npt.NDArray[np.int64]
    requests: npt.NDArray[np.int64]
    """Of all of them, one after the other; `num_tokens` and `is_prefill` are theirs."""
    num_tokens: npt.NDArray[np.int64]
    is_prefill: npt.NDArray[np.bool_]


def attribute(events: Iterable[Event], requests: "pd.Index[int]", num_devices: "pd.Series[Any]") -> Attribution:
    """Share the time of all iterations among `requests`, which ascend; `num_devices` is by instance.

    Asserts that what they pay is all that the iterations took.
    """
    by_kind = EventsByKind.of(events)
    shares, busy_s, unattributed_s = np.zeros((len(SHARES), len(requests))), 0.0, 0.0
    for part in _parts(by_kind, num_devices):
        shares += _shares(part, requests)
        busy_s += float(part.seconds.sum())
        unattributed_s += float(part.seconds[part.num_requests == 0].sum())
    paid_s = float(shares[:2].sum()) + unattributed_s
    assert abs(paid_s - busy_s) <= 1e-9 * (1.0 + busy_s), f"requests pay {paid_s} s of {busy_s} s"
    return Attribution(pd.DataFrame(dict(zip(SHARES, shares, strict=True)), index=requests), unattributed_s)


def _parts(by_kind: EventsByKind, num_devices: "pd.Series[Any]") -> Iterator[_Part]:
    for kind in (EventKind.ITERATION, EventKind.ITERATIONS):
        found = by_kind.columns(kind)
        for first in range(0, len(found.time_s), _SLICE):
            yield _part(found.part(first, first + _SLICE), num_devices)


def _part(found: Columns, num_devices: "pd.Series[Any]") -> _Part:
    num_tokens, is_prefill = (
        np.ones(len(found.requests.values), np.int64),
        np.zeros(len(found.requests.values), np.bool_),
    )
    if "chunks" in found.lists:
        chunks = found.lists["chunks"]
        places = found.owners(chunks)
        num_tokens[places], is_prefill[places] = chunks.values[:, 1], True
    return _Part(
        found.time_s - found.details["started_s"],
        np.array(num_devices.reindex(found.source), np.float64),
        found.requests.sizes,
        found.requests.values,
        num_tokens,
        is_prefill,
    )


def _shares(part: _Part, requests: "pd.Index[int]") -> npt.NDArray[np.float64]:
    """Seconds of each of `SHARES` by request."""
    iteration = np.repeat(np.arange(len(part.seconds)), part.num_requests)
    per_token_s = part.seconds / np.bincount(iteration, part.num_tokens, len(part.seconds)).clip(min=1)
    seconds = per_token_s[iteration] * part.num_tokens
    payer = requests.get_indexer(pd.Index(part.requests))
    assert (payer >= 0).all(), f"an iteration names request {part.requests[payer < 0][0]}, which never arrived"
    weights = (seconds * part.is_prefill, seconds * ~part.is_prefill, seconds * part.num_devices[iteration])
    return np.array([np.bincount(payer, each, len(requests)) for each in weights])
