"""Where warm-up ends and drain begins, and runs that are too short to tell."""

from math import nan

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.metrics.steady import MIN_REQUESTS, VALUES, steady_state
from tetribench.metrics.timeline import TokenTimes


def served(arrived_s: "list[float]", jct_s: "list[float]", num_tokens: int = 5) -> tuple[pd.DataFrame, TokenTimes]:
    """Requests with so many tokens each, the last of them at their end; those whose JCT is NaN fail after a second."""
    table = pd.DataFrame({"arrived_s": arrived_s, "jct_s": jct_s}, dtype=float)
    table = table.assign(finished_s=table["arrived_s"] + table["jct_s"], ttft_s=table["jct_s"] / num_tokens)
    failed_s = (table["arrived_s"] + 1.0).where(table["finished_s"].isna())
    finished = table[table["finished_s"].notna()]
    spans_s = zip(finished["arrived_s"].tolist(), finished["finished_s"].tolist(), strict=True)
    times_s = [np.linspace(from_s, to_s, num_tokens + 1)[1:] for from_s, to_s in spans_s]
    sizes = np.full(len(finished), num_tokens)
    times = TokenTimes(finished.index.to_numpy(), sizes, np.concatenate([[], *times_s]))
    return table.assign(failed_s=failed_s, tpot_s=table["ttft_s"]), times


def even(num: int, jct_s: float = 5.0, gap_s: float = 1.0) -> tuple[pd.DataFrame, TokenTimes]:
    return served([place * gap_s for place in range(num)], [jct_s] * num)


def test_warm_up_and_drain_are_cut_off() -> None:
    """One request a second that takes five: the fifth makes it full, and the last arrives after 199 s."""
    found = steady_state(*even(200))
    assert found["why_not"] is None
    assert (found["from_s"], found["to_s"], found["num_requests"]) == (4.0, 199.0, 196)
    assert found["mean_jct_s"] == found["p95_jct_s"] == 5.0
    assert found["mean_ttft_s"] == found["p95_ttft_s"] == found["mean_tpot_s"] == 1.0


def test_throughput_in_the_window_is_that_of_the_load() -> None:
    """Over the makespan it is 200 requests in 204 s."""
    requests, times = even(200)
    found = steady_state(requests, times)
    makespan_s = requests["finished_s"].max() - requests["arrived_s"].min()
    assert found["request_throughput_per_s"] == 1.0 > len(requests) / makespan_s
    assert found["output_throughput_tokens_per_s"] == pytest.approx(5.0, rel=0.01)


def test_what_warms_up_slowly_is_not_in_the_latencies() -> None:
    """The first requests take ten times as long as all others."""
    jct_s = [5.0 if place >= 3 else 50.0 for place in range(200)]
    found = steady_state(*served([float(place) for place in range(200)], jct_s))
    assert found["mean_jct_s"] < np.mean(jct_s)


@pytest.mark.parametrize(
    ("run", "why_not"),
    [
        (even(1), "all requests arrive at one moment"),
        (even(50, gap_s=0.0), "all requests arrive at one moment"),
        (even(MIN_REQUESTS, jct_s=3.0), "18 requests arrive between warm-up and drain and finish, and 20 are needed"),
        (even(200, jct_s=60.0), "between warm-up and drain are 140 s, less than 2.5 mean JCTs of 60 s"),
        (even(200, jct_s=150.0), "only 149 s after the first of 199 s of arrivals"),
        (
            served([float(place) for place in range(300)], [place / 2 + 2.0 for place in range(300)]),
            "so that it still rises when half of them are over",
        ),
    ],
    ids=["one", "burst", "few", "short", "warming", "piling"],
)
def test_no_steady_state_is_made_up(run: tuple[pd.DataFrame, TokenTimes], why_not: str) -> None:
    found = steady_state(*run)
    assert why_not in found["why_not"]
    assert [found[name] for name in ("from_s", "to_s", "num_requests", *VALUES)] == [None] * (3 + len(VALUES))


def test_requests_that_fail_leave_the_system_and_those_that_never_end_stay() -> None:
    arrived_s = [float(place) for place in range(100)]
    requests, times = served(arrived_s, [nan if place % 2 else 5.0 for place in range(100)])
    found = steady_state(requests, times)
    assert found["why_not"] is None and found["num_requests"] == sum(
        found["from_s"] <= place for place in range(0, 100, 2)
    )
    stuck = requests.assign(failed_s=nan)
    assert "still rises" in steady_state(stuck, times)["why_not"]


@given(
    st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.01, 20.0)), min_size=1, max_size=80),
    st.floats(-50.0, 50.0),
)
def test_a_window_lies_within_the_arrivals_wherever_they_begin(
    drawn: list[tuple[float, float]], moved_s: float
) -> None:
    arrived_s, jct_s = (list(each) for each in zip(*sorted(drawn), strict=True))
    found = steady_state(*served([each + moved_s for each in arrived_s], jct_s))
    if found["why_not"] is None:
        first_s, last_s = arrived_s[0] + moved_s, arrived_s[-1] + moved_s
        assert first_s <= found["from_s"] <= (first_s + last_s) / 2 and found["to_s"] == last_s
        assert found["num_requests"] >= MIN_REQUESTS
