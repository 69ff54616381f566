"""From events to tables: a row for each request, instance, iteration and transfer. No statistics here.

Times are the run's clock as it is. The order of the events does not matter, except between equal times.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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

DELIVERIES = (EventKind.FIRST_TOKEN, EventKind.TOKEN, EventKind.TOKENS)


class EventsByKind:
    """Events by kind, and each kind by time. All tables are made from one of these, or make one for themselves."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._by_kind: defaultdict[EventKind, list[Event]] = defaultdict(list)
        for event in sorted(events, key=attrgetter("time_s")):
            self._by_kind[event.kind].append(event)

    @classmethod
    def of(cls, events: "Iterable[Event]") -> "EventsByKind":
        return events if isinstance(events, cls) else cls(events)

    def __getitem__(self, kind: EventKind) -> list[Event]:
        return self._by_kind[kind]

    def __iter__(self) -> Iterator[Event]:
        return chain.from_iterable(self._by_kind.values())


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
    by_kind = EventsByKind.of(events)
    first = {kind: _first(by_kind[kind]) for kind in EDGES.values()}
    arrived, finished = first[EventKind.ARRIVED], first[EventKind.FINISHED]
    moved = _sums(by_kind[EventKind.TRANSFER_DONE], ("num_bytes", "busy_s"))
    for kind, found in first.items():
        if not found.keys() <= arrived.keys():
            lost = min(found.keys() - arrived.keys())
            raise ValueError(f"the event log has {kind} for request {lost}, which never arrived")
    ids = sorted(arrived)
    num_delivered: Counter[int] = Counter()
    if finished.keys() < arrived.keys():
        for event in chain.from_iterable(by_kind[kind] for kind in DELIVERIES):
            for id in event.requests:
                num_delivered[id] += len(_delivery_times(event))
    num_retried = Counter(chain.from_iterable(event.requests for event in by_kind[EventKind.RETRIED]))
    preempted = [(event.requests[0], event.details) for event in by_kind[EventKind.PREEMPTED]]
    num_preempted = Counter(id for id, _ in preempted)
    num_swapped = Counter(id for id, details in preempted if details["how"] == "swap")
    num_recomputed_tokens: Counter[int] = Counter()
    for id, details in preempted:
        num_recomputed_tokens[id] += details["num_tokens"] if details["how"] == "recompute" else 0

    columns: dict[str, Any] = {
        "label": _texts([arrived[id].details.get("label", "") for id in ids]),
        "sla_class": _texts([arrived[id].details.get("sla_class", DEFAULT_SLA_CLASS) for id in ids]),
        "num_prompt_tokens": _ints([arrived[id].details["num_prompt_tokens"] for id in ids]),
        "max_output_tokens": _ints([arrived[id].details["max_output_tokens"] for id in ids]),
    }
    for column, kind in EDGES.items():
        columns[column] = _floats([first[kind][id].time_s if id in first[kind] else np.nan for id in ids])
    for end in ("low", "high"):
        bounds = [_detail(first[EventKind.PREDICTED].get(id), end) for id in ids]
        columns[f"predicted_{end}"] = _floats([np.nan if bound is None else bound for bound in bounds])
    spent_s = [_detail(first[EventKind.PREDICTED].get(id), "duration_s") for id in ids]
    columns["predicting_s"] = _floats([np.nan if spent is None else spent for spent in spent_s])
    columns["reason"] = _texts([_detail(first[EventKind.FAILED].get(id), "reason") for id in ids])
    columns["num_output_tokens"] = _ints(
        finished[id].details["num_output_tokens"] if id in finished else num_delivered[id] for id in ids
    )
    columns["num_preemptions"] = _ints([num_preempted[id] for id in ids])
    columns["num_swaps"] = _ints([num_swapped[id] for id in ids])
    columns["num_recomputed_tokens"] = _ints([num_recomputed_tokens[id] for id in ids])
    columns["num_retries"] = _ints([num_retried[id] for id in ids])
    columns["num_transfer_bytes"] = _ints([moved[id]["num_bytes"] if id in moved else 0 for id in ids])
    columns["transfer_busy_s"] = _floats([moved[id]["busy_s"] if id in moved else np.nan for id in ids])
    columns["prefill_instance"] = _texts([_source(first[EventKind.PREFILL_STARTED].get(id)) for id in ids])
    columns["decode_instance"] = _texts([_source(first[EventKind.ADMITTED].get(id)) for id in ids])
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
    by_kind = EventsByKind.of(events)
    parts: defaultdict[int, list[npt.NDArray[np.float64]]] = defaultdict(list)
    for event in chain.from_iterable(by_kind[kind] for kind in DELIVERIES):
        times_s = np.array(_delivery_times(event))  # one for all of its requests
        for id in event.requests:
            parts[id].append(times_s)
    return {id: np.sort(np.concatenate(parts[id])) for id in sorted(parts)}


def _delivery_times(event: Event) -> list[float]:
    """When each of the requests got a token."""
    times_s: list[float] = event.details["times_s"] if event.kind is EventKind.TOKENS else [event.time_s]
    return times_s


def iteration_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each iteration of an instance, by end and then by instance."""
    by_kind = EventsByKind.of(events)
    single, runs = by_kind[EventKind.ITERATION], by_kind[EventKind.ITERATIONS]
    ends_s = [np.array(run.details["ends_s"]) for run in runs]
    started_s = [np.append(run.details["started_s"], each[:-1]) for run, each in zip(runs, ends_s, strict=True)]
    sizes = [len(each) for each in ends_s]
    none, names = np.zeros(sum(sizes), np.int64), sorted({event.source for event in (*single, *runs)})
    codes = {name: code for code, name in enumerate(names)}
    instance = np.append(
        _ints([codes[event.source] for event in single]), np.repeat(_ints([codes[run.source] for run in runs]), sizes)
    )
    ended_s = np.concatenate([_floats([event.time_s for event in single]), *ends_s])
    order = np.lexsort((instance, ended_s))
    columns: dict[str, Any] = {
        "started_s": np.concatenate([_floats([event.details["started_s"] for event in single]), *started_s]),
        "ended_s": ended_s,
        "num_prefill_tokens": np.append(_counts(single, "num_prefill_tokens"), none),
        "num_decode_tokens": np.append(
            _counts(single, "num_decode_tokens"), np.repeat(_counts(runs, "num_decode_tokens"), sizes)
        ),
        "num_used_blocks": np.concatenate(
            [_counts(single, "num_used_blocks"), *(np.array(run.details["num_used_blocks"]) for run in runs)]
        ),
        "num_swapped_bytes": np.append(_counts(single, "num_swapped_bytes"), none),
    }
    instances = pd.Series(np.array(names, dtype=object)[instance[order]], dtype="object")
    return pd.DataFrame({"instance": instances} | {name: column[order] for name, column in columns.items()})


def _counts(events: Iterable[Event], name: str) -> npt.NDArray[np.int64]:
    return _ints([event.details[name] for event in events])


def transfer_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each push of KV from `source` to `target`, by end."""
    found = EventsByKind.of(events)[EventKind.TRANSFER]
    return pd.DataFrame(
        {
            "request": _ints([event.requests[0] for event in found]),
            "source": _texts([event.source for event in found]),
            "target": _texts([event.details["to"] for event in found]),
            "started_s": _floats([event.details["started_s"] for event in found]),
            "ended_s": _floats([event.time_s for event in found]),
            "num_bytes": _ints([event.details["num_bytes"] for event in found]),
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
    names = sorted({*started, *ready, *stopped, *iterations["instance"], *transfers["source"]})
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
    return np.array(list(values), np.float64)


def _ints(values: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.array(list(values), np.int64)


def _texts(values: Iterable[str | None]) -> "pd.Series[Any]":
    """Objects, because pandas' own text type would turn None into NaN."""
    return pd.Series(list(values), dtype="object")
