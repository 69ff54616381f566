"""What the client adds to the truth: TTFT and ITL as it measures them, less those of a server that knows its own.

For the events of `drive.null_server` alone: there a request's prefill starts when the instance has received it, and an
iteration yields a token for each of its requests.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.events import Event, EventKind
from tetribench.metrics.columns import EventsByKind
from tetribench.metrics.latency import num_samples_needed
from tetribench.metrics.timeline import TokenTimes, is_finished, request_table, token_times


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticError:
    """By how much a statistic that the client measures is above the server's own; None with too few samples."""

    mean_s: float | None
    p99_s: float | None
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientError:
    """Of one calibration. `num_streams` is the most requests that were in the system at once.

    `asked_per_s` and `delivered_per_s` are requests, as intended and as sent; None where all are due at one moment.
    """

    ttft: StatisticError
    itl: StatisticError
    num_requests: int
    num_streams: int
    tokens_per_s: float
    asked_per_s: float | None
    delivered_per_s: float | None
    mean_send_delay_s: float
    max_send_delay_s: float


def client_error(events: Iterable[Event]) -> ClientError:
    """From the events of a null server. Raises ValueError where a request did not end well: nothing is known then."""
    log = EventsByKind.of(events)
    requests, delivered = request_table(log), token_times(log)
    num_lost = int((~is_finished(requests)).sum())
    if num_lost or requests.empty:
        raise ValueError(f"of {len(requests)} requests to the null server {num_lost} did not end well")
    produced = _produced(log)
    assert np.array_equal(produced.ids, delivered.ids) and np.array_equal(produced.sizes, delivered.sizes)
    send_delay_s = requests["sent_s"] - requests["arrived_s"]
    duration_s = float(requests["finished_s"].max() - requests["sent_s"].min())
    return ClientError(
        ttft=_error(
            (requests["first_token_s"] - requests["arrived_s"]).to_numpy(),
            (requests["prefill_done_s"] - requests["prefill_started_s"]).to_numpy(),
        ),
        itl=_error(_gaps(delivered), _gaps(produced)),
        num_requests=len(requests),
        num_streams=_most_at_once(requests),
        tokens_per_s=len(delivered.times_s) / duration_s if duration_s > 0 else 0.0,
        asked_per_s=rate_per_s(requests["arrived_s"].to_numpy()),
        delivered_per_s=rate_per_s(requests["sent_s"].to_numpy()),
        mean_send_delay_s=float(send_delay_s.mean()),
        max_send_delay_s=float(send_delay_s.max()),
    )


def rate_per_s(times_s: npt.NDArray[np.float64]) -> float | None:
    """Of events at these times, the first of which begins the span; None where they are all at one moment."""
    span_s = float(np.ptp(times_s)) if len(times_s) else 0.0
    return (len(times_s) - 1) / span_s if span_s > 0 else None


def _produced(log: EventsByKind) -> TokenTimes:
    """When the server had each token."""
    iterations = log.columns(EventKind.ITERATION)
    requests, times_s = iterations.requests.values, iterations.time_s[iterations.requests.events]
    ids, sizes = np.unique(requests, return_counts=True)
    return TokenTimes(ids, sizes, times_s[np.argsort(requests, kind="stable")])


def _gaps(times: TokenTimes) -> npt.NDArray[np.float64]:
    return np.concatenate([np.diff(each) for each in times.values()])


def _error(measured_s: npt.NDArray[np.float64], true_s: npt.NDArray[np.float64]) -> StatisticError:
    num_samples = len(measured_s)
    mean_s = float(measured_s.mean() - true_s.mean()) if num_samples else None
    p99_s = None
    if num_samples >= num_samples_needed(99):
        p99_s = float(np.percentile(measured_s, 99) - np.percentile(true_s, 99))
    return StatisticError(mean_s=mean_s, p99_s=p99_s, num_samples=num_samples)


def _most_at_once(requests: pd.DataFrame) -> int:
    """One that ends when another is sent has made room for it."""
    moments = sorted(
        [(time_s, 1) for time_s in requests["sent_s"]] + [(time_s, -1) for time_s in requests["finished_s"]]
    )
    return int(np.cumsum([change for _, change in moments]).max())
