from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tetribench.metrics
from tetribench.core.events import Event, EventKind
from tetribench.metrics.latency import (
    CRITICAL_PATH,
    ITL,
    METRICS,
    Metric,
    add_metrics,
    itl_values,
    num_samples_needed,
    summarise,
)
from tetribench.metrics.timeline import request_table, token_times

COLUMNS = {metric.name: metric.column for metric in METRICS}

DISAGGREGATED = {
    "ttft_s": 0.45,
    "ttft_engine_s": 0.40,
    "tpot_s": 0.55 / 3,
    "jct_s": 1.00,
    "normalised_latency_s": 0.25,
    "send_delay_s": 0.01,
    "route_s": 0.02,
    "predict_s": 0.17,
    "prefill_queue_s": 0.07,
    "prefill_s": 0.30,
    "reserve_wait_s": 0.05,
    "transfer_s": 0.12,
    "transfer_exposed_s": 0.20,
    "decode_queue_s": 0.12,
    "decode_s": 0.40,
}
ONE_TOKEN = {
    "ttft_s": 2.0,
    "ttft_engine_s": 1.5,
    "jct_s": 2.0,
    "normalised_latency_s": 2.0,
    "send_delay_s": 0.0,
    "route_s": 0.0,
    "predict_s": 0.45,
    "prefill_queue_s": 0.5,
    "prefill_s": 1.0,
}
COLOCATED = {
    "ttft_s": 1.0,
    "ttft_engine_s": 1.0,
    "tpot_s": 1.0,
    "jct_s": 4.0,
    "normalised_latency_s": 4 / 3,
    "send_delay_s": 0.0,
    "route_s": 0.1,
    "prefill_queue_s": 0.4,
    "prefill_s": 0.5,
    "transfer_exposed_s": 0.0,
    "decode_s": 3.0,
}


def measured(log: list[Event]) -> pd.DataFrame:
    return add_metrics(request_table(log), token_times(log))


@pytest.mark.parametrize(
    ("name", "request_id", "expected"),
    [("disaggregated", 1, DISAGGREGATED), ("disaggregated", 2, ONE_TOKEN), ("colocated", 1, COLOCATED)],
)
def test_every_metric_of_a_life(
    name: str, request_id: int, expected: dict[str, float], request: pytest.FixtureRequest
) -> None:
    life = measured(request.getfixturevalue(name)).loc[request_id, list(COLUMNS.values())]
    assert life.dropna().to_dict() == pytest.approx(expected)


def test_what_did_not_finish_has_no_latency(colocated: list[Event]) -> None:
    table = measured(colocated)
    assert list(table.index) == [1, 2, 3]
    assert table.loc[[2, 3], list(COLUMNS.values())].isna().all(axis=None), "though 3 has its first token"


def test_a_response_without_tokens_has_no_normalised_latency(colocated: list[Event]) -> None:
    table = request_table(colocated).assign(num_output_tokens=0)
    assert add_metrics(table, token_times([]))["normalised_latency_s"].isna().all()


def test_gaps_are_pooled_over_finished_requests(disaggregated: list[Event], colocated: list[Event]) -> None:
    gaps = itl_values(request_table(disaggregated), token_times(disaggregated))
    assert gaps.to_list() == pytest.approx([0.25, 0.10, 0.20])
    assert itl_values(request_table(colocated), token_times(colocated)).to_list() == [0.5, 1.5]


def test_nothing_finished_no_gaps() -> None:
    assert itl_values(request_table([]), token_times([])).empty


def test_columns_are_names_with_units() -> None:
    assert COLUMNS["ttft"] == "ttft_s"
    assert len(set(COLUMNS.values())) == len(METRICS)
    assert set(CRITICAL_PATH) <= set(COLUMNS)


@pytest.mark.parametrize("metric", [*METRICS, ITL], ids=lambda metric: metric.name)
def test_the_readme_defines_every_metric(metric: Metric) -> None:
    assert tetribench.metrics.__file__ is not None
    readme = Path(tetribench.metrics.__file__).with_name("README.md").read_text()
    row = f"| `{metric.column}` | {metric.title} | {metric.unit} | {metric.better} | {metric.formula} |"
    assert row in readme.splitlines()


def test_a_percentile_needs_samples_beyond_it() -> None:
    assert [num_samples_needed(percent) for percent in (50, 90, 95, 99)] == [2, 10, 20, 100]


@pytest.mark.parametrize(
    ("num_samples", "defined"),
    [(1, set()), (9, set()), (10, {"p90"}), (19, {"p90"}), (20, {"p90", "p95"}), (99, {"p90", "p95"})],
)
def test_percentiles_of_too_few_samples_are_left_out(num_samples: int, defined: set[str]) -> None:
    summary = summarise(list(range(num_samples)))
    assert {name for name in ("p90", "p95", "p99") if summary[name] is not None} == defined
    assert summary["median"] == (num_samples - 1) / 2 and summary["count"] == num_samples


def test_a_summary_by_hand() -> None:
    summary = summarise([*range(101), float("nan")])
    expected = {"mean": 50.0, "median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "min": 0.0, "max": 100.0}
    assert summary == expected | {"count": 101}
    assert list(summary) == list(summarise([])), "the keys do not depend on the samples"


def test_a_summary_of_nothing() -> None:
    summary = summarise([float("nan")])
    assert summary.pop("count") == 0
    assert set(summary.values()) == {None}


steps = st.floats(0.0, 5.0)


@given(st.lists(st.tuples(*[steps] * 6, st.booleans()), min_size=1, max_size=5))
def test_the_stages_of_the_critical_path_sum_to_the_jct(lives: list[tuple[float, ...]]) -> None:
    kinds = [EventKind.SENT, EventKind.ROUTED, EventKind.PREFILL_STARTED, EventKind.PREFILL_DONE]
    log = []
    for id, (*durations, admitted_first) in enumerate(lives):
        details = {"num_prompt_tokens": 1, "max_output_tokens": 1, "num_output_tokens": 1}
        ends = np.cumsum([1.0, *durations]).tolist()
        log.append(Event(ends[0], EventKind.ARRIVED, "client", (id,), details))
        log += [Event(end_s, kind, "x", (id,)) for kind, end_s in zip(kinds, ends[1:], strict=False)]
        log.append(Event(ends[3] if admitted_first else ends[5], EventKind.ADMITTED, "x", (id,)))
        log.append(Event(ends[6], EventKind.FINISHED, "client", (id,), details))
    table = measured(log)
    stages = table[[COLUMNS[name] for name in CRITICAL_PATH]]
    assert stages.notna().all(axis=None) and (stages > -1e-9).all(axis=None)
    np.testing.assert_allclose(stages.sum(axis="columns"), table["jct_s"], atol=1e-9)
