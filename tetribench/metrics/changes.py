"""What happened to the instances during a run: flips, losses, instances that came and left, flips that were refused."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.timeline import of_instance

COLUMNS = ("time_s", "instance", "what", "role", "to", "reason", "drain_s", "overhead_s")

KINDS = (
    EventKind.FLIP_STARTED,
    EventKind.FLIPPED,
    EventKind.INSTANCE_LOST,
    EventKind.FLIP_REFUSED,
    EventKind.INSTANCE_READY,
)


def change_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each change, by time, with `COLUMNS`.

    `time_s` is when the change was done; `what` is flip, left, lost, joined or refused. A flip takes `drain_s` to
    finish what the instance held, and `overhead_s` beside that: from the decision until control knows of the new role
    (paper section 3.5 prints 5 to 7 ms for it). NaN and None where a column does not apply.
    """
    by_kind = EventsByKind.of(events)
    reasons: dict[str, str] = {}
    served = min(by_kind.columns(EventKind.ARRIVED).time_s, default=np.inf)
    rows: list[dict[str, Any]] = []
    for event in sorted(chain.from_iterable(by_kind[kind] for kind in KINDS), key=lambda event: event.time_s):
        details, row = event.details, {"time_s": event.time_s, "instance": event.source}
        match event.kind:
            case EventKind.FLIP_STARTED:
                reasons[event.source] = details["reason"]
            case EventKind.FLIPPED:
                what = "left" if details["to"] is None else "flip"
                times = {name: details[name] for name in ("drain_s", "overhead_s")}
                ends = {"role": details["role"], "to": details["to"], "reason": reasons.get(event.source)}
                rows.append(row | {"what": what} | ends | times)
            case EventKind.INSTANCE_LOST:
                rows.append(row | {"what": "lost", "reason": details["reason"].partition("\n")[0]})
            case EventKind.FLIP_REFUSED:
                rows.append(row | {"what": "refused", "reason": details["reason"]})
            case EventKind.INSTANCE_READY if event.time_s > served:
                rows.append(row | {"what": "joined", "to": details["role"]})
    numbers = {"time_s", "drain_s", "overhead_s"}
    columns = {
        name: pd.Series([row.get(name) for row in rows], dtype="float64" if name in numbers else "object")
        for name in COLUMNS
    }
    return pd.DataFrame(columns)


def role_at_work(iterations: pd.DataFrame, instances: pd.DataFrame, changes: pd.DataFrame) -> "pd.Series[Any]":
    """The role of the instance during each iteration: the one that it started with, until it has flipped."""
    roles = of_instance(iterations, instances["role"])
    for flip in changes[changes["what"] == "flip"].itertuples():
        later = (iterations["instance"] == flip.instance) & (iterations["ended_s"] > flip.time_s)
        roles = roles.mask(later, str(flip.to))
    return roles
