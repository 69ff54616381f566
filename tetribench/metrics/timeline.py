"""From events to tables: a row for each request, instance, iteration and transfer. No statistics here.

Times are the run's clock as it is. The order of the events does not matter, except between equal times.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.core.request import DEFAULT_SLA_CLASS
from tetribench.metrics.columns import Array, Columns, EventsByKind, Floats, Ints, Lists

EDGES = {
    "arrived_s": EventKind.ARRIVED,
    "sent_s": EventKind.SENT,
    "routed_s": EventKind.ROUTED,
    "predicted_s": EventKind.PREDICTED,
    "prefill_started_s": EventKind.PREFILL_STARTED,
    "prefill_done_s": EventKind.PREFILL_DONE,
    "dispatched_s": EventKind.DISPATCHED,
    "reserved_s": EventKind.RESERVED,
    "transfer_started_s": EventKind.TRANSFER_STARTED,
    "transfer_done_s": EventKind.TRANSFER_DONE,
    "admitted_s": EventKind.ADMITTED,
    "first_token_s": EventKind.FIRST_TOKEN,
    "finished_s": EventKind.FINISHED,
    "failed_s": EventKind.FAILED,
}
"""The request table's times and the events whose first occurrence they are."""

DELIVERIES = (EventKind.FIRST_TOKEN, EventKind.TOKEN, EventKind.TOKENS)


class TokenTimes(Mapping[int, Floats]):
    """When each token was delivered, by request, ascending; a request to which none was delivered has no entry.

    `times_s` holds them all, request after request by id, `ids` and `sizes` whose they are and how many each has.
    """

    def __init__(self, ids: Ints, sizes: Ints, times_s: Floats) -> None:
        self.ids = ids
        self.sizes = sizes
        self.times_s = times_s
        self._ends = np.cumsum(sizes)

    def __getitem__(self, id: int) -> Floats:
        place = int(np.searchsorted(self.ids, id))
        if place == len(self.ids) or self.ids[place] != id:
            raise KeyError(id)
        end = self._ends[place]
        return self.times_s[end - self.sizes[place] : end]

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first_s(self) -> Floats:
        """Of each request's first token."""
        times_s: Floats = self.times_s[self._ends - self.sizes]
        return times_s

    @property
    def last_s(self) -> Floats:
        times_s: Floats = self.times_s[self._ends - 1]
        return times_s


@dataclass(frozen=True, slots=True)
class Accounting:
    """Where the requests of a run are. A request that failed after all of its tokens came counts as failed."""

    submitted: int
    finished: int
    failed: int
    unfinished: int

    def __post_init__(self) -> None:
        assert self.finished + self.failed + self.unfinished == self.submitted, "a request was lost or counted twice"


class _Firsts:
    """Each request's first event of one kind, on the rows of a request table whose index is `ids`."""

    def __init__(self, ids: Ints, kind: EventKind, found: Columns) -> None:
        self.events = found
        known, places = np.unique(found.requests.values, return_index=True)
        lost = np.setdiff1d(known, ids)
        if lost.size:
            raise ValueError(f"the event log has {kind} for request {lost[0]}, which never arrived")
        self._num_rows, self._rows = len(ids), np.searchsorted(ids, known)
        self._numbers = found.requests.events[places]

    def column(self, values: Array, missing: Any = np.nan) -> Array:
        """Of `values`, one for each event, those of the first events; `missing` where a request has none."""
        column = np.full(self._num_rows, missing, values.dtype)
        column[self._rows] = values[self._numbers]
        return column

    def detail(self, name: str, missing: Any = np.nan) -> Array:
        return self.column(self.events.details[name], missing)


def request_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each request that arrived, by id; NaN for a time (None for a name) that has not come.

    `num_output_tokens` is what FINISHED says, else the number of tokens delivered so far.
    Raises ValueError when an event names a request that never arrived.
    """
    by_kind = EventsByKind.of(events)
    ids = np.unique(by_kind.columns(EventKind.ARRIVED).requests.values)
    first = {kind: _Firsts(ids, kind, by_kind.columns(kind)) for kind in EDGES.values()}
    arrived, predicted = first[EventKind.ARRIVED], first[EventKind.PREDICTED]
    moved, preempted = by_kind.columns(EventKind.TRANSFER_DONE), by_kind[EventKind.PREEMPTED]
    swapped = [event for event in preempted if event.details["how"] == "swap"]
    recomputed = [event for event in preempted if event.details["how"] == "recompute"]

    columns: dict[str, Any] = {
        "label": _texts(text or "" for text in arrived.detail("label", None)),
        "sla_class": _texts(text or DEFAULT_SLA_CLASS for text in arrived.detail("sla_class", None)),
        "num_prompt_tokens": arrived.detail("num_prompt_tokens", 0),
        "max_output_tokens": arrived.detail("max_output_tokens", 0),
    }
    columns |= {column: first[kind].column(first[kind].events.time_s) for column, kind in EDGES.items()}
    columns |= {"predicted_low": predicted.detail("low"), "predicted_high": predicted.detail("high")}
    columns["predicting_s"] = predicted.detail("duration_s")
    columns["reason"] = _texts(first[EventKind.FAILED].detail("reason", None))
    columns["num_output_tokens"] = first[EventKind.FINISHED].detail("num_output_tokens", 0)
    is_open = np.isnan(columns["finished_s"])
    if is_open.any():
        columns["num_output_tokens"][is_open] = _num_delivered(by_kind, ids[is_open])
    columns["num_preemptions"] = _counts(ids, preempted)
    columns["num_swaps"] = _counts(ids, swapped)
    num_recomputed_tokens = [event.details["num_tokens"] for event in recomputed]
    columns["num_recomputed_tokens"] = _sums(ids, _requests(recomputed), _ints(num_recomputed_tokens), 0)
    columns["num_retries"] = _counts(ids, by_kind[EventKind.RETRIED])
    columns["num_transfer_bytes"] = _sums(ids, moved.requests.values, moved.details["num_bytes"], 0)
    columns["transfer_busy_s"] = _sums(ids, moved.requests.values, moved.details["busy_s"], np.nan)
    for column, kind in (("prefill_instance", EventKind.PREFILL_STARTED), ("decode_instance", EventKind.ADMITTED)):
        columns[column] = _texts(first[kind].column(first[kind].events.source, None))
    return pd.DataFrame(columns).set_index(pd.Index(ids, dtype="int64", name="request"))


def _requests(events: Iterable[Event]) -> Ints:
    return _ints(request for event in events for request in event.requests)


def _counts(ids: Ints, events: Iterable[Event]) -> Array:
    """How many of `events` each request has."""
    requests = _requests(events)
    return _sums(ids, requests, np.ones(len(requests), np.int64), 0)


def _sums(ids: Ints, requests: Ints, values: Array, missing: float) -> Array:
    """The sum of each request's values: one that was sent again, for example, is handed over more than once."""
    return pd.Series(values).groupby(requests).sum().reindex(ids, fill_value=missing).to_numpy()


def is_finished(requests: pd.DataFrame) -> "pd.Series[bool]":
    """The rows of a request table that ended well; every latency is about these."""
    return requests["finished_s"].notna() & requests["failed_s"].isna()


def account(requests: pd.DataFrame) -> Accounting:
    """Count the rows of a request table by their fate."""
    num_finished, num_failed = int(is_finished(requests).sum()), int(requests["failed_s"].notna().sum())
    num_unfinished = int((requests["finished_s"].isna() & requests["failed_s"].isna()).sum())
    return Accounting(len(requests), num_finished, num_failed, num_unfinished)


@dataclass(frozen=True, slots=True)
class _Deliveries:
    """Who got tokens when: each of `requests` at the times that are the list `numbers` of `times_s`."""

    requests: Ints
    numbers: Ints
    times_s: Lists

    @classmethod
    def of(cls, by_kind: EventsByKind) -> "_Deliveries":
        found = [by_kind.columns(kind) for kind in DELIVERIES]
        lists = [each.lists.get("times_s", Lists(each.time_s, np.ones(len(each.time_s), np.int64))) for each in found]
        starts = np.cumsum([0, *(len(each.time_s) for each in found)])
        return cls(
            np.concatenate([each.requests.values for each in found]),
            np.concatenate([each.requests.events + start for each, start in zip(found, starts, strict=False)]),
            Lists.joined(lists),
        )


def _num_delivered(by_kind: EventsByKind, ids: Ints) -> Array:
    """How many tokens each of these requests has got."""
    found = _Deliveries.of(by_kind)
    return _sums(ids, found.requests, found.times_s.sizes[found.numbers], 0)


def token_times(events: Iterable[Event]) -> TokenTimes:
    """Delivery times of every request's tokens, the first token included."""
    found = _Deliveries.of(EventsByKind.of(events))
    first_s = found.times_s.values[found.times_s.starts]
    order = np.lexsort((first_s[found.numbers], found.requests))
    ids, starts = np.unique(found.requests[order], return_index=True)
    delivered = found.times_s.taken(found.numbers[order])
    sizes = np.add.reduceat(delivered.sizes, starts) if len(ids) else delivered.sizes
    times = TokenTimes(ids, sizes, delivered.values)
    for id in _falling(times):
        times[id].sort()
    return times


def _falling(times: TokenTimes) -> list[int]:
    """The requests whose times do not ascend."""
    ends = np.cumsum(times.sizes)
    falls = np.setdiff1d(np.flatnonzero(np.diff(times.times_s) < 0.0) + 1, ends)
    ids: list[int] = times.ids[np.unique(np.searchsorted(ends, falls, side="right"))].tolist()
    return ids


def iteration_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each iteration of an instance, by end and then by instance."""
    by_kind = EventsByKind.of(events)
    single, runs = by_kind.columns(EventKind.ITERATION), by_kind.columns(EventKind.ITERATIONS)
    ends, num_used_blocks = runs.lists["ends_s"], runs.lists["num_used_blocks"]
    none = np.zeros(len(ends.values), np.int64)
    numbers = np.append(np.arange(len(single.source)), len(single.source) + ends.events)
    instance = pd.Categorical(np.append(single.source, runs.source))[numbers]
    columns = {
        "started_s": np.append(single.details["started_s"], _run_starts(runs.details["started_s"], ends)),
        "ended_s": np.append(single.time_s, ends.values),
        "num_prefill_tokens": np.append(single.details["num_prefill_tokens"], none),
        "num_decode_tokens": np.append(
            single.details["num_decode_tokens"], runs.details["num_decode_tokens"][ends.events]
        ),
        "num_used_blocks": np.append(single.details["num_used_blocks"], num_used_blocks.values),
        "num_swapped_bytes": np.append(single.details["num_swapped_bytes"], none),
    }
    order = np.lexsort((instance.codes, columns["ended_s"]))
    return pd.DataFrame(
        {"instance": instance[order]} | {name: column[order] for name, column in columns.items()}, copy=False
    )


def _run_starts(started_s: Floats, ends: Lists) -> Floats:
    """When each iteration of some runs began: with its run, or when the one before it ended."""
    starts = np.empty_like(ends.values)
    starts[1:] = ends.values[:-1]
    starts[ends.starts] = started_s
    return starts


def transfer_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each push of KV from `source` to `target`, by end."""
    found = EventsByKind.of(events).columns(EventKind.TRANSFER)
    return pd.DataFrame(
        {
            "request": found.requests.values,
            "source": _texts(found.source),
            "target": _texts(found.details["to"]),
            "started_s": found.details["started_s"],
            "ended_s": found.time_s,
            "num_bytes": found.details["num_bytes"],
        }
    )


def instance_table(events: Iterable[Event], iterations: pd.DataFrame, transfers: pd.DataFrame) -> pd.DataFrame:
    """One row for each instance, by name: its provisioned life, its work by kind of iteration, its engine's facts.

    Facts are floats, NaN (None for text) for an instance that never got ready; `num_devices` is 1 if nothing says more,
    and its part of those that it shares.
    A transfer is work of the instance that sends. The work of an opaque instance, such as a server of others, is NaN.
    """
    by_kind = EventsByKind.of(events)
    kinds = (EventKind.INSTANCE_STARTED, EventKind.INSTANCE_READY, EventKind.INSTANCE_STOPPED)
    started, ready, stopped = ({event.source: event for event in by_kind[kind]} for kind in kinds)
    names = sorted({*started, *ready, *stopped, *iterations["instance"].unique(), *transfers["source"].unique()})
    index = pd.Index(names, dtype="object", name="instance")

    facts = [ready[name].details if name in ready else {} for name in names]
    columns: dict[str, Any] = {
        "role": _texts([_detail(started.get(name) or ready.get(name), "role") for name in names]),
        "started_s": _floats([started[name].time_s if name in started else np.nan for name in names]),
        "ready_s": _floats([ready[name].time_s if name in ready else np.nan for name in names]),
        "stopped_s": _floats([stopped[name].time_s if name in stopped else np.nan for name in names]),
    }
    columns |= {fact: _floats([each.get(fact, np.nan) for each in facts]) for fact in ("num_blocks", "block_size")}
    columns |= {fact: _texts([each.get(fact) for each in facts]) for fact in ("device", "device_uuid", "dtype")}
    columns["num_devices"] = _floats([each.get("num_devices", 1) / each.get("num_sharing", 1) for each in facts])
    is_opaque = np.array([each.get("is_opaque", False) for each in facts], np.bool_)
    work = _work(iterations, transfers, index)
    work = work.mask(np.broadcast_to(is_opaque[:, None], work.shape)) if is_opaque.any() else work
    table = pd.DataFrame(columns).set_index(index).assign(is_opaque=is_opaque).join(work)
    return table.assign(kv_capacity_tokens=table["num_blocks"] * table["block_size"])


def of_instance(iterations: pd.DataFrame, column: "pd.Series[Any]") -> "pd.Series[Any]":
    """For each iteration what a column of the instance table says of its instance."""
    instance = pd.Categorical(iterations["instance"])
    return pd.Series(column.reindex(instance.categories).to_numpy()[instance.codes], iterations.index)


def _work(iterations: pd.DataFrame, transfers: pd.DataFrame, index: "pd.Index[Any]") -> pd.DataFrame:
    by_instance, by_sender = iterations.groupby("instance"), transfers.groupby("source")
    firsts, lasts = (
        pd.concat([getattr(each[edge], how)() for each in (by_instance, by_sender)]).groupby(level=0)
        for edge, how in (("started_s", "min"), ("ended_s", "max"))
    )
    duration_s = iterations["ended_s"] - iterations["started_s"]
    no_prefill, no_decode = iterations["num_prefill_tokens"] == 0, iterations["num_decode_tokens"] == 0
    busy = pd.DataFrame(
        {
            "busy_prefill_s": duration_s.where(no_decode, 0.0),
            "busy_decode_s": duration_s.where(no_prefill & ~no_decode, 0.0),
            "busy_mixed_s": duration_s.where(~no_prefill & ~no_decode, 0.0),
            "num_iterations": 1,
        }
    )
    transfer_s = (transfers["ended_s"] - transfers["started_s"]).groupby(transfers["source"]).sum()
    table = pd.DataFrame({"first_work_s": firsts.min(), "last_work_s": lasts.max()}).reindex(index)
    table = table.join(busy.groupby(iterations["instance"]).sum().reindex(index, fill_value=0))
    return table.assign(transfer_s=transfer_s.reindex(index, fill_value=0.0))


def _detail(event: Event | None, key: str) -> Any:
    return None if event is None else event.details.get(key)


def _floats(values: Iterable[float]) -> npt.NDArray[np.float64]:
    return np.array(list(values), np.float64)


def _ints(values: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.array(list(values), np.int64)


def _texts(values: Iterable[str | None]) -> "pd.Series[Any]":
    """Objects, because pandas' own text type would turn None into NaN."""
    return pd.Series(list(values), dtype="object")
