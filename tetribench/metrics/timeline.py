"""From events to tables: a row for each request, instance, iteration and transfer. No statistics here.

Times are the run's clock as it is. The order of the events does not matter, except between equal times.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.core.request import DEFAULT_SLA_CLASS

TokenTimes = dict[int, npt.NDArray[np.float64]]
"""When each token was delivered, by request, ascending; a request to which none was delivered has no entry."""

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

DELIVERIES = (EventKind.FIRST_TOKEN, EventKind.TOKEN)


@dataclass(frozen=True, slots=True)
class Accounting:
    """Where the requests of a run are. A request that failed after all of its tokens came counts as failed."""

    submitted: int
    finished: int
    failed: int
    unfinished: int

    def __post_init__(self) -> None:
        assert self.finished + self.failed + self.unfinished == self.submitted, "a request was lost or counted twice"


def request_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each request that arrived, by id; NaN for a time (None for a name) that has not come.

    `num_output_tokens` is what FINISHED says, else the number of tokens delivered so far.
    Raises ValueError when an event names a request that never arrived.
    """
    by_kind = _by_kind(events)
    first = {kind: _first(by_kind[kind]) for kind in EDGES.values()}
    arrived, finished = first[EventKind.ARRIVED], first[EventKind.FINISHED]
    moved = _sums(by_kind[EventKind.TRANSFER_DONE], ("num_bytes", "busy_s"))
    for kind, found in first.items():
        if not found.keys() <= arrived.keys():
            lost = min(found.keys() - arrived.keys())
            raise ValueError(f"the event log has {kind} for request {lost}, which never arrived")
    ids = sorted(arrived)
    num_delivered = Counter(chain.from_iterable(event.requests for kind in DELIVERIES for event in by_kind[kind]))
    num_retried = Counter(chain.from_iterable(event.requests for event in by_kind[EventKind.RETRIED]))
    preempted = [(event.requests[0], event.details) for event in by_kind[EventKind.PREEMPTED]]
    num_preempted = Counter(id for id, _ in preempted)
    num_swapped = Counter(id for id, details in preempted if details["how"] == "swap")
    num_recomputed_tokens: Counter[int] = Counter()
    for id, details in preempted:
        num_recomputed_tokens[id] += details["num_tokens"] if details["how"] == "recompute" else 0

    columns: dict[str, Any] = {
        "label": _texts(arrived[id].details.get("label", "") for id in ids),
        "sla_class": _texts(arrived[id].details.get("sla_class", DEFAULT_SLA_CLASS) for id in ids),
        "num_prompt_tokens": _ints(arrived[id].details["num_prompt_tokens"] for id in ids),
        "max_output_tokens": _ints(arrived[id].details["max_output_tokens"] for id in ids),
    }
    for column, kind in EDGES.items():
        columns[column] = _floats(first[kind][id].time_s if id in first[kind] else np.nan for id in ids)
    for end in ("low", "high"):
        bounds = [_detail(first[EventKind.PREDICTED].get(id), end) for id in ids]
        columns[f"predicted_{end}"] = _floats(np.nan if bound is None else bound for bound in bounds)
    columns["predicting_s"] = _floats(
        np.nan if spent_s is None else spent_s
        for spent_s in (_detail(first[EventKind.PREDICTED].get(id), "duration_s") for id in ids)
    )
    columns["reason"] = _texts(_detail(first[EventKind.FAILED].get(id), "reason") for id in ids)
    columns["num_output_tokens"] = _ints(
        finished[id].details["num_output_tokens"] if id in finished else num_delivered[id] for id in ids
    )
    columns["num_preemptions"] = _ints(num_preempted[id] for id in ids)
    columns["num_swaps"] = _ints(num_swapped[id] for id in ids)
    columns["num_recomputed_tokens"] = _ints(num_recomputed_tokens[id] for id in ids)
    columns["num_retries"] = _ints(num_retried[id] for id in ids)
    columns["num_transfer_bytes"] = _ints(moved[id]["num_bytes"] if id in moved else 0 for id in ids)
    columns["transfer_busy_s"] = _floats(moved[id]["busy_s"] if id in moved else np.nan for id in ids)
    columns["prefill_instance"] = _texts(_source(first[EventKind.PREFILL_STARTED].get(id)) for id in ids)
    columns["decode_instance"] = _texts(_source(first[EventKind.ADMITTED].get(id)) for id in ids)
    return pd.DataFrame(columns).set_index(pd.Index(ids, dtype="int64", name="request"))


def is_finished(requests: pd.DataFrame) -> "pd.Series[bool]":
    """The rows of a request table that ended well; every latency is about these."""
    return requests["finished_s"].notna() & requests["failed_s"].isna()


def account(requests: pd.DataFrame) -> Accounting:
    """Count the rows of a request table by their fate."""
    num_finished, num_failed = int(is_finished(requests).sum()), int(requests["failed_s"].notna().sum())
    num_unfinished = int((requests["finished_s"].isna() & requests["failed_s"].isna()).sum())
    return Accounting(len(requests), num_finished, num_failed, num_unfinished)


def token_times(events: Iterable[Event]) -> TokenTimes:
    """Delivery times of every request's tokens, the first token included."""
    by_kind = _by_kind(events)
    deliveries = [event for kind in DELIVERIES for event in by_kind[kind]]
    sizes = [len(event.requests) for event in deliveries]
    ids = np.fromiter(chain.from_iterable(event.requests for event in deliveries), np.int64, sum(sizes))
    times = np.repeat(_floats(event.time_s for event in deliveries), sizes)
    order = np.lexsort((times, ids))
    found, starts = np.unique(ids[order], return_index=True)
    return dict(zip(found.tolist(), np.split(times[order], starts[1:]), strict=False))


def iteration_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each iteration of an instance, by end."""
    found = _by_kind(events)[EventKind.ITERATION]
    counts = ("num_prefill_tokens", "num_decode_tokens", "num_used_blocks", "num_swapped_bytes")
    columns: dict[str, Any] = {
        "instance": _texts(event.source for event in found),
        "started_s": _floats(event.details["started_s"] for event in found),
        "ended_s": _floats(event.time_s for event in found),
    }
    return pd.DataFrame(columns | {name: _ints(event.details[name] for event in found) for name in counts})


def transfer_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each push of KV from `source` to `target`, by end."""
    found = _by_kind(events)[EventKind.TRANSFER]
    return pd.DataFrame(
        {
            "request": _ints(event.requests[0] for event in found),
            "source": _texts(event.source for event in found),
            "target": _texts(event.details["to"] for event in found),
            "started_s": _floats(event.details["started_s"] for event in found),
            "ended_s": _floats(event.time_s for event in found),
            "num_bytes": _ints(event.details["num_bytes"] for event in found),
        }
    )


def instance_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each instance, by name: its provisioned life, its work by kind of iteration, its engine's facts.

    Facts are floats, NaN (None for text) for an instance that never got ready; `num_devices` is 1 if nothing says more.
    A transfer is work of the instance that sends.
    """
    events = list(events)
    by_kind, iterations, transfers = _by_kind(events), iteration_table(events), transfer_table(events)
    kinds = (EventKind.INSTANCE_STARTED, EventKind.INSTANCE_READY, EventKind.INSTANCE_STOPPED)
    started, ready, stopped = ({event.source: event for event in by_kind[kind]} for kind in kinds)
    names = sorted({*started, *ready, *stopped, *iterations["instance"], *transfers["source"]})
    index = pd.Index(names, dtype="object", name="instance")

    facts = [ready[name].details if name in ready else {} for name in names]
    columns: dict[str, Any] = {
        "role": _texts(_detail(started.get(name) or ready.get(name), "role") for name in names),
        "started_s": _floats(started[name].time_s if name in started else np.nan for name in names),
        "ready_s": _floats(ready[name].time_s if name in ready else np.nan for name in names),
        "stopped_s": _floats(stopped[name].time_s if name in stopped else np.nan for name in names),
    }
    columns |= {fact: _floats(each.get(fact, np.nan) for each in facts) for fact in ("num_blocks", "block_size")}
    columns |= {fact: _texts(each.get(fact) for each in facts) for fact in ("device", "dtype")}
    columns["num_devices"] = _ints(each.get("num_devices", 1) for each in facts)
    table = pd.DataFrame(columns).set_index(index).join(_work(iterations, transfers, index))
    return table.assign(kv_capacity_tokens=table["num_blocks"] * table["block_size"])


def _work(iterations: pd.DataFrame, transfers: pd.DataFrame, index: "pd.Index[Any]") -> pd.DataFrame:
    spans = [iterations[["instance", "started_s", "ended_s"]], transfers.rename(columns={"source": "instance"})]
    work = pd.concat([span[["instance", "started_s", "ended_s"]] for span in spans]).groupby("instance")
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
    table = pd.DataFrame({"first_work_s": work["started_s"].min(), "last_work_s": work["ended_s"].max()}).reindex(index)
    table = table.join(busy.groupby(iterations["instance"]).sum().reindex(index, fill_value=0))
    return table.assign(transfer_s=transfer_s.reindex(index, fill_value=0.0))


def _by_kind(events: Iterable[Event]) -> defaultdict[EventKind, list[Event]]:
    by_kind: defaultdict[EventKind, list[Event]] = defaultdict(list)
    for event in sorted(events, key=attrgetter("time_s")):
        by_kind[event.kind].append(event)
    return by_kind


def _first(events: Iterable[Event]) -> dict[int, Event]:
    """Each request's first among `events`, which are sorted."""
    found: dict[int, Event] = {}
    for event in events:
        for request in event.requests:
            found.setdefault(request, event)
    return found


def _sums(events: Iterable[Event], keys: tuple[str, ...]) -> dict[int, Counter[str]]:
    """By request, the sums of some details: a request that was sent again is handed over more than once."""
    sums: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for event in events:
        for request in event.requests:
            for key in keys:
                sums[request][key] += event.details[key]
    return sums


def _detail(event: Event | None, key: str) -> Any:
    return None if event is None else event.details.get(key)


def _source(event: Event | None) -> str | None:
    return None if event is None else event.source


def _floats(values: Iterable[float]) -> npt.NDArray[np.float64]:
    return np.fromiter(values, np.float64)


def _ints(values: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.fromiter(values, np.int64)


def _texts(values: Iterable[str | None]) -> "pd.Series[Any]":
    """Objects, because pandas' own text type would turn None into NaN."""
    return pd.Series(list(values), dtype="object")
