"""What was asked of a run against what it delivered: arrivals here, tokens in `token_audit`."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.events import Event
from tetribench.core.request import Request
from tetribench.metrics.client_error import rate_per_s
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.latency import summarise
from tetribench.metrics.timeline import TokenTimes
from tetribench.metrics.token_audit import token_audit

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run was to be, as far as its events do not say.

    `concurrency` is that of a closed loop. `rate_per_s` and `cv` are those of the process that arrivals were drawn
    from: gamma distributed gaps, of one length where `cv` is 0; None where there is no such process.
    """

    requests: Sequence[Request] = field(repr=False)
    concurrency: int | None = None
    rate_per_s: float | None = None
    cv: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalAudit:
    """Arrivals as intended (asked) and as sent (delivered).

    `schedule_distance` is the Kolmogorov-Smirnov distance between the moments of both, `process_distance` that between
    the gaps as sent and the process asked for, with the probability of a larger one if they agree. None where there is
    nothing to compare: all requests at one moment, no process, a closed loop (which has a `mean_concurrency` instead,
    up to the last request sent).
    """

    num_asked: int
    num_sent: int
    asked_per_s: float | None
    delivered_per_s: float | None
    asked_cv: float | None
    delivered_cv: float | None
    schedule_distance: float | None
    process_distance: float | None
    process_p: float | None
    asked_concurrency: int | None
    mean_concurrency: float | None
    send_delay_s: dict[str, Any]


def audit(events: Iterable[Event], requests: pd.DataFrame, times: TokenTimes, asked: Asked) -> dict[str, Any]:
    """`arrivals` and `tokens`, as plain values. `requests` is the request table of the events, `times` its tokens."""
    log = EventsByKind.of(events)
    arrivals = asdict(arrival_audit(requests, asked))
    return {"arrivals": arrivals, "tokens": asdict(token_audit(log, requests, times, asked.requests))}


def arrival_audit(requests: pd.DataFrame, asked: Asked) -> ArrivalAudit:
    """From the request table; what was never sent is in the number asked only."""
    sent = requests[requests["sent_s"].notna()]
    is_open = asked.concurrency is None
    intended_s, sent_s = np.sort(sent["arrived_s"].to_numpy()), np.sort(sent["sent_s"].to_numpy())
    schedule_s = np.array([request.arrival_s for request in asked.requests])
    asked_per_s = rate_per_s(schedule_s)
    has_rate = asked_per_s is not None or not is_open
    distance, probability = _process_distance(sent_s, asked) if is_open else (None, None)
    return ArrivalAudit(
        num_asked=len(asked.requests),
        num_sent=len(sent),
        asked_per_s=asked_per_s if is_open else None,
        delivered_per_s=rate_per_s(sent_s) if has_rate else None,
        asked_cv=_cv(schedule_s) if is_open else None,
        delivered_cv=_cv(sent_s) if is_open and has_rate else None,
        schedule_distance=_schedule_distance(intended_s, sent_s) if is_open else None,
        process_distance=distance,
        process_p=probability,
        asked_concurrency=asked.concurrency,
        mean_concurrency=None if is_open else _mean_concurrency(sent),
        send_delay_s=summarise(sent["sent_s"] - sent["arrived_s"]),
    )


def _cv(times_s: Times) -> float | None:
    """Of the gaps: their standard deviation over their mean."""
    gaps_s = np.diff(times_s)
    return float(gaps_s.std() / gaps_s.mean()) if len(gaps_s) > 1 and gaps_s.mean() > 0 else None


def _schedule_distance(intended_s: Times, sent_s: Times) -> float | None:
    """Sends that keep their order are as far apart as the most that are due and not yet sent, or the reverse."""
    if len(intended_s) < 2 or np.ptp(intended_s) == 0:
        return None
    moments = np.concatenate([intended_s, sent_s])
    num_due, num_sent = (np.searchsorted(times, moments, side="right") for times in (intended_s, sent_s))
    return float(np.abs(num_due - num_sent).max() / len(intended_s))


def _process_distance(sent_s: Times, asked: Asked) -> tuple[float | None, float | None]:
    """A constant process has no distribution to compare with: any delay at all is as far from it as can be."""
    if asked.rate_per_s is None or not asked.cv or len(sent_s) < 2:
        return None, None
    from scipy.stats import gamma, kstest  # half a second to import

    shape = asked.cv**-2
    found = kstest(np.diff(sent_s), gamma(shape, scale=1.0 / (asked.rate_per_s * shape)).cdf)
    return float(found.statistic), float(found.pvalue)


def _mean_concurrency(sent: pd.DataFrame) -> float | None:
    """Over the time in which there was something left to send."""
    start_s, end_s = sent["sent_s"].min(), sent["sent_s"].max()
    if not end_s > start_s:
        return None
    ended_s = sent["finished_s"].fillna(sent["failed_s"]).fillna(np.inf)
    return float((ended_s.clip(upper=end_s) - sent["sent_s"]).sum() / (end_s - start_s))
