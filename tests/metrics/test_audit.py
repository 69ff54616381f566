"""Arrivals asked for against those delivered, on schedules whose answers are known."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request
from tetribench.core.request import Request
from tetribench.metrics.audit import Asked, arrival_audit


def asked(arrivals_s: list[float], **others: float | int | None) -> Asked:
    return Asked(requests=[request(id, arrival_s=arrival_s) for id, arrival_s in enumerate(arrivals_s)], **others)  # type: ignore[arg-type]


def table(
    arrived_s: list[float], sent_s: list[float], finished_s: list[float] | None = None, failed_s: float = np.nan
) -> pd.DataFrame:
    ends_s = [np.nan] * len(sent_s) if finished_s is None else finished_s
    return pd.DataFrame({"arrived_s": arrived_s, "sent_s": sent_s, "finished_s": ends_s, "failed_s": failed_s})


def test_what_was_sent_as_intended_is_as_asked() -> None:
    times_s = [0.0, 0.5, 1.0, 1.5]
    found = arrival_audit(table(times_s, times_s), asked(times_s))
    assert (found.asked_per_s, found.delivered_per_s) == (2.0, 2.0)
    assert (found.asked_cv, found.delivered_cv) == (0.0, 0.0)
    assert found.schedule_distance == 0.0
    assert (found.process_distance, found.process_p) == (None, None)
    assert found.send_delay_s["max"] == 0.0
    assert (found.asked_concurrency, found.mean_concurrency) == (None, None)


def test_the_runs_clock_need_not_start_with_the_workload() -> None:
    times_s = [0.0, 0.5, 1.0]
    later_s = [time_s + 7.0 for time_s in times_s]
    found = arrival_audit(table(later_s, later_s), asked(times_s))
    assert found.asked_per_s == found.delivered_per_s == 2.0 and found.schedule_distance == 0.0


def test_sends_that_pile_up_are_seen() -> None:
    """The last three of four go out together, when the fourth is due: two should have gone before."""
    found = arrival_audit(table([0.0, 1.0, 2.0, 3.0], [0.0, 3.0, 3.0, 3.0]), asked([0.0, 1.0, 2.0, 3.0]))
    assert found.schedule_distance == 0.5
    assert found.delivered_per_s == 1.0 and found.delivered_cv == pytest.approx(2**0.5)
    assert found.send_delay_s["max"] == 2.0


def test_what_was_never_sent_is_asked_for_all_the_same() -> None:
    found = arrival_audit(table([0.0, 1.0, 2.0], [0.0, 1.0, np.nan]), asked([0.0, 1.0, 2.0, 3.0]))
    assert (found.num_asked, found.num_sent) == (4, 2)


def test_requests_that_are_all_due_at_once_have_no_rate() -> None:
    found = arrival_audit(table([0.0] * 3, [0.0, 0.001, 0.002]), asked([0.0] * 3))
    assert found.asked_per_s is None and found.asked_cv is None and found.schedule_distance is None
    assert found.delivered_per_s is None and found.delivered_cv is None


def test_a_single_request_has_no_gaps() -> None:
    found = arrival_audit(table([0.0], [0.0]), asked([0.0], rate_per_s=4.0, cv=1.0))
    assert found.delivered_per_s is None and found.delivered_cv is None and found.process_distance is None


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_gaps_of_the_asked_process_agree_with_it_and_others_do_not(cv: float) -> None:
    shape = cv**-2
    sent_s = np.random.default_rng(0).gamma(shape, 1 / (4.0 * shape), 400).cumsum().tolist()
    same = arrival_audit(table(sent_s, sent_s), asked(sent_s, rate_per_s=4.0, cv=cv))
    assert same.process_p is not None and same.process_p > 0.01
    assert same.process_distance is not None and same.process_distance < 0.1
    faster = arrival_audit(table(sent_s, sent_s), asked(sent_s, rate_per_s=6.0, cv=cv))
    assert faster.process_p is not None and faster.process_p < 0.01


def test_a_closed_loop_has_a_concurrency_instead_of_a_schedule() -> None:
    """Two at a time; one that failed has left too."""
    times_s = [0.0, 0.0, 2.0, 4.0]
    requests = table(times_s, times_s, [2.0, 4.0, np.nan, 9.0])
    requests.loc[2, "failed_s"] = 8.0
    found = arrival_audit(requests, asked([0.0] * 4, concurrency=2))
    assert (found.asked_concurrency, found.mean_concurrency) == (2, 2.0)
    assert found.schedule_distance is None and found.asked_per_s is None and found.delivered_per_s == 0.75


def test_a_closed_loop_that_had_nothing_left_to_send_has_no_mean() -> None:
    assert arrival_audit(table([0.0], [0.0]), asked([0.0], concurrency=2)).mean_concurrency is None


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 3.0)), min_size=2, max_size=30))
def test_the_distance_is_that_of_scipys_two_samples(drawn: list[tuple[float, float]]) -> None:
    from scipy.stats import ks_2samp

    intended_s = sorted(time_s for time_s, _ in drawn)
    sent_s = [time_s + delay_s for time_s, (_, delay_s) in zip(intended_s, drawn, strict=True)]
    found = arrival_audit(table(intended_s, sent_s), asked(intended_s)).schedule_distance
    if all(earlier == later for earlier, later in pairwise(intended_s)):
        assert found is None
    else:
        assert found == pytest.approx(float(ks_2samp(intended_s, sent_s, method="asymp").statistic))


def test_requests_are_not_printed_with_what_was_asked() -> None:
    assert "Request" not in repr(
        Asked(requests=[Request(id=0, arrival_s=0.0, num_prompt_tokens=1, max_output_tokens=1)])
    )
