"""From events to claims: the spans of time in which an instance did something, or had a reason to do nothing."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.metrics.columns import EventsByKind


class Kind(StrEnum):
    """Of a claim, in the order in which two that claim the same moment have it.

    What an instance does comes before why it does nothing, and what is rarer before what is left over.
    """

    COMPUTE = "compute"
    PREDICTOR = "predictor"
    TRANSFER = "transfer"
    START_UP = "start_up"
    SHUT_DOWN = "shut_down"
    FLIP = "flip"
    LOST = "lost"
    MEMORY = "memory"
    UNTOLD = "untold"


class Claim(NamedTuple):
    kind: Kind
    instance: str
    started_s: float
    ended_s: float


def lives(events: Iterable[Event], instances: pd.DataFrame) -> pd.DataFrame:
    """`started_s` and `stopped_s` of each instance; where the log lacks one, the first or the last that it knows."""
    by_kind = EventsByKind.of(events)
    stopped_s = instances["stopped_s"].fillna(by_kind.last_s)
    started_s = instances["started_s"].fillna(instances["ready_s"]).fillna(instances["first_work_s"])
    return pd.DataFrame({"started_s": started_s.fillna(stopped_s), "stopped_s": stopped_s})


def claims(
    events: Iterable[Event], iterations: pd.DataFrame, transfers: pd.DataFrame, instances: pd.DataFrame
) -> pd.DataFrame:
    """One row for each claim on an instance's time, with the fields of `Claim`."""
    by_kind, life = EventsByKind.of(events), lives(events, instances)
    done = [
        _frame(Kind.COMPUTE, iterations, "instance"),
        _frame(Kind.TRANSFER, transfers, "source"),
        _frame(Kind.TRANSFER, transfers, "target"),
        _predictions(by_kind),
        pd.DataFrame(_waits(by_kind), columns=Claim._fields),
    ]
    recorded = pd.concat([each for each in done if len(each)] or done[-1:], ignore_index=True)
    reasons = pd.DataFrame(
        [*_edges_of_life(by_kind, life, instances), *_changes(by_kind, life), *_losses(by_kind, recorded, instances)],
        columns=Claim._fields,
    )
    return pd.concat([recorded, reasons], ignore_index=True)


def _frame(kind: Kind, table: pd.DataFrame, instance: str) -> pd.DataFrame:
    found = table[[instance, "started_s", "ended_s"]].rename(columns={instance: "instance"})
    found.insert(0, "kind", kind)
    return found


def _predictions(by_kind: EventsByKind) -> pd.DataFrame:
    found = by_kind.columns(EventKind.PREDICTED)
    started_s = found.time_s - found.details["duration_s"]
    columns = (np.full(len(started_s), Kind.PREDICTOR, np.object_), found.source, started_s, found.time_s)
    return pd.DataFrame(dict(zip(Claim._fields, columns, strict=True)))


def _waits(by_kind: EventsByKind) -> Iterator[Claim]:
    for event in by_kind[EventKind.MEMORY_WAIT]:
        yield Claim(Kind.MEMORY, event.source, event.details["started_s"], event.time_s)


def _edges_of_life(by_kind: EventsByKind, life: pd.DataFrame, instances: pd.DataFrame) -> Iterator[Claim]:
    """The start-up of an instance that never got ready is all of its life."""
    all_ended_s = _all_ended_s(by_kind)
    ready_s = instances["ready_s"].fillna(life["stopped_s"])
    for name, from_s, to_s, up_s in zip(life.index, life["started_s"], life["stopped_s"], ready_s, strict=True):
        yield Claim(Kind.START_UP, name, from_s, up_s)
        yield Claim(Kind.SHUT_DOWN, name, all_ended_s, to_s)
    for name in instances.index[instances["is_opaque"]]:
        yield Claim(Kind.UNTOLD, name, ready_s[name], life["stopped_s"][name])


def _all_ended_s(by_kind: EventsByKind) -> float:
    """When the last request had ended; infinite while one has not."""
    arrived = by_kind.columns(EventKind.ARRIVED).requests.values
    ends = [by_kind.columns(kind) for kind in (EventKind.FINISHED, EventKind.FAILED)]
    ended = np.concatenate([each.requests.values for each in ends])
    if not len(arrived) or not np.isin(arrived, ended).all():
        return float("inf")
    return float(np.concatenate([each.time_s for each in ends]).max())


def _changes(by_kind: EventsByKind, life: pd.DataFrame) -> Iterator[Claim]:
    """From each decision until it was carried out; one to leave until the end, as is one that never was."""
    flipped = by_kind[EventKind.FLIPPED]
    for event in by_kind[EventKind.FLIP_STARTED]:
        name, leaves = event.source, event.details["to"] is None
        done_s = (one.time_s for one in flipped if one.source == name and one.time_s >= event.time_s)
        stopped_s = float(life["stopped_s"][name])
        ended_s = stopped_s if leaves else next(done_s, stopped_s)
        yield Claim(Kind.SHUT_DOWN if leaves else Kind.FLIP, name, event.time_s, ended_s)


def _losses(by_kind: EventsByKind, recorded: pd.DataFrame, instances: pd.DataFrame) -> Iterator[Claim]:
    for event in by_kind[EventKind.INSTANCE_LOST]:
        if event.details["num_restarted"]:
            own = recorded["instance"] == event.source
            last_s = recorded.loc[own & (recorded["ended_s"] <= event.time_s), "ended_s"].max()
            since_s = instances["ready_s"][event.source] if np.isnan(last_s) else last_s
            yield Claim(Kind.LOST, event.source, float(since_s), event.time_s)
