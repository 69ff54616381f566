"""What dispatchers decided and on what, one row for each decision, and what the decisions of a run have in common."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.core.load import heavy_share
from tetribench.core.sequence import LengthRange
from tetribench.metrics.columns import EventsByKind


class Decision(NamedTuple):
    """One DISPATCHED event; the columns of `decision_table`.

    `instance` decided, on loads that were `age_s` old in the mean over `candidates` (names with a space between).
    `num_fitting` is NaN where the policy does not look for memory. A heavy share is that of the instance's decodes once
    the request has joined them (`core.load.heavy_share`). Of the candidates that were not chosen, `other_free_tokens`
    is the most, `other_num_decodes` the fewest and `other_heavy_share` the lowest; NaN where there is none. `is_tied`
    says that there were several candidates, all with the same heavy share.
    """

    time_s: float
    request: int
    instance: str
    to: str
    candidates: str
    num_candidates: int
    num_fitting: float
    predicted_low: int
    predicted_high: int
    age_s: float
    num_free_tokens: int
    num_decodes: int
    heavy_share: float
    other_free_tokens: float
    other_num_decodes: float
    other_heavy_share: float
    is_tied: bool


def decision_table(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each decision, by time; a request that was sent again has several."""
    decisions = [_decision(event) for event in EventsByKind.of(events)[EventKind.DISPATCHED]]
    return pd.DataFrame(decisions, columns=Decision._fields)


def _decision(event: Event) -> Decision:
    details, to = event.details, event.details["to"]
    joins_heavy = LengthRange(details["low"], details["high"]).is_heavy
    seen: dict[str, list[float]] = details["candidates"]
    shares = {name: heavy_share(int(heavy), int(light), joins_heavy) for name, (_, heavy, light, _) in seen.items()}
    num_decodes = {name: int(heavy + light) for name, (_, heavy, light, _) in seen.items()}
    others = [name for name in seen if name != to]
    return Decision(
        time_s=event.time_s,
        request=event.requests[0],
        instance=event.source,
        to=to,
        candidates=" ".join(seen),
        num_candidates=len(seen),
        num_fitting=details.get("num_fitting", float("nan")),
        predicted_low=details["low"],
        predicted_high=details["high"],
        age_s=sum(age_s for *_, age_s in seen.values()) / len(seen),
        num_free_tokens=int(seen[to][0]),
        num_decodes=num_decodes[to],
        heavy_share=shares[to],
        other_free_tokens=max((seen[name][0] for name in others), default=float("nan")),
        other_num_decodes=min((num_decodes[name] for name in others), default=float("nan")),
        other_heavy_share=min((shares[name] for name in others), default=float("nan")),
        is_tied=bool(others) and len(set(shares.values())) == 1,
    )


def decision_summary(decisions: pd.DataFrame) -> dict[str, Any]:
    """Plain values of a run's `decision_table`: number and shares of decisions, and ages of the loads in seconds.

    `single_share` had one candidate and nothing to decide; in `tied_share` the interference was the same on all
    candidates; in `busier_share` the one chosen had more decodes than another; in `none_fitting_share` no instance had
    the memory, None where the policy does not look. The others are None without decisions.
    """
    num_fitting = decisions["num_fitting"].dropna()
    return {
        "num_decisions": len(decisions),
        "single_share": _mean(decisions["num_candidates"] == 1),
        "tied_share": _mean(decisions["is_tied"]),
        "busier_share": _mean(decisions["num_decodes"] > decisions["other_num_decodes"]),
        "none_fitting_share": _mean(num_fitting == 0),
        "mean_age_s": _mean(decisions["age_s"]),
        "max_age_s": float(decisions["age_s"].max()) if len(decisions) else None,
    }


def _mean(values: "pd.Series[Any]") -> float | None:
    return float(values.mean()) if len(values) else None
