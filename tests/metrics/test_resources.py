from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest

import tetribench.metrics
from tetribench.core.events import Event
from tetribench.metrics.changes import change_table
from tetribench.metrics.latency import add_metrics
from tetribench.metrics.resources import (
    RESOURCE_METRICS,
    ResourceMetric,
    Tables,
    attainment,
    num_attained,
    perf_per_dollar,
    resource_metrics,
)
from tetribench.metrics.slo import Slo
from tetribench.metrics.timeline import (
    instance_table,
    iteration_table,
    request_table,
    token_times,
    transfer_table,
)

Make = Callable[..., Event]


def tables(log: list[Event], slo: Slo | None = None) -> Tables:
    requests = add_metrics(request_table(log), token_times(log))
    iterations, transfers, changes = iteration_table(log), transfer_table(log), change_table(log)
    return Tables(requests, instance_table(log, iterations, transfers), iterations, transfers, changes, slo or Slo())


def test_a_disaggregated_system(disaggregated: list[Event]) -> None:
    metrics = resource_metrics(tables(disaggregated, Slo(ttft_s=0.5)))
    assert metrics == pytest.approx(
        {
            "makespan_s": 2.0,
            "resource_time_s": 1.5 + 1.0,
            "device_seconds": 4.0,
            "busy_s": 1.7,
            "utilisation": 1.7 / 4.0,
            "request_throughput_per_s": 1.0,
            "output_throughput_tokens_per_s": 2.5,
            "output_throughput_per_device_tokens_per_s": 1.25,
            "total_throughput_tokens_per_s": 102.5,
            "goodput_per_s": 0.5,
            "slo_attained_share": 0.5,
            "kv_occupancy_mean": (0.2 * 0.1 + 0.1 * 0.2 + 1.0 * 0.4 + 0.4 * 0.25) / 1.7,
            "kv_occupancy_max": 0.4,
            "num_preemptions": 0,
            "num_retries": 0,
            "num_lost_instances": 0,
            "num_flips": 0,
            "num_swaps": 0,
            "num_recomputations": 0,
            "num_recomputed_tokens": 0,
            "swapped_bytes": 0,
            "prediction_accuracy": 0.5,
            "transfer_bytes": 1000,
            "transfer_bandwidth_bytes_per_s": 1000 / 0.10,
            "busy_prefill_instances_s": 1.3,
            "busy_decode_instances_s": 0.4,
        }
    )


def test_a_colocated_system(colocated: list[Event]) -> None:
    metrics = resource_metrics(tables(colocated))
    undefined = [metrics.pop("transfer_bandwidth_bytes_per_s"), metrics.pop("prediction_accuracy")]
    assert all(map(isnan, undefined)), "nothing was sent, and nobody predicted"
    assert metrics == pytest.approx(
        {
            "makespan_s": 4.0,
            "resource_time_s": 3.0,
            "device_seconds": 4.0,
            "busy_s": 2.0,
            "utilisation": 0.5,
            "request_throughput_per_s": 0.25,
            "output_throughput_tokens_per_s": 0.75,
            "output_throughput_per_device_tokens_per_s": 0.75,
            "total_throughput_tokens_per_s": 103 / 4,
            "goodput_per_s": 0.25,
            "slo_attained_share": 1 / 3,
            "kv_occupancy_mean": (0.5 * 0.5 + 0.5 * 1.0 + 1.0 * 0.75) / 2.0,
            "kv_occupancy_max": 1.0,
            "num_preemptions": 1,
            "num_retries": 0,
            "num_lost_instances": 0,
            "num_flips": 0,
            "num_swaps": 0,
            "num_recomputations": 1,
            "num_recomputed_tokens": 102,
            "swapped_bytes": 0,
            "transfer_bytes": 0,
            "busy_colocated_instances_s": 2.0,
        }
    )


def test_swaps_and_recomputations_are_told_apart(disaggregated: list[Event], event: Make) -> None:
    counts = {"num_prefill_tokens": 0, "num_decode_tokens": 1, "num_used_blocks": 1}
    thrashing = [
        event(1.65, "preempted", "d0", 1, how="swap", num_tokens=102, num_bytes=700),
        event(1.70, "iteration", "d0", started_s=1.65, num_swapped_bytes=700, **counts),
        event(1.75, "iteration", "d0", started_s=1.70, num_swapped_bytes=800, **counts),
        event(1.80, "preempted", "d0", 1, how="recompute", num_tokens=103, num_bytes=0),
        event(1.85, "preempted", "d0", 2, how="recompute", num_tokens=7, num_bytes=0),
    ]
    metrics = resource_metrics(tables([*disaggregated, *thrashing]))
    assert metrics["num_preemptions"] == 3
    assert (metrics["num_swaps"], metrics["swapped_bytes"]) == (1, 1500)
    assert (metrics["num_recomputations"], metrics["num_recomputed_tokens"]) == (2, 110)


def test_a_prediction_is_right_when_the_response_is_in_its_range(disaggregated: list[Event], event: Make) -> None:
    """Request 1 has 4 tokens, 2 has 1; a range holds its low end and not its high one."""
    unpredicted = [each for each in disaggregated if each.kind != "predicted"]
    for low, high, expected in [(0, 4, 0.5), (4, 8, 1.0), (0, 5, 1.0), (5, 9, 0.5)]:
        one = event(1.2, "predicted", "p0", 1, low=low, high=high, duration_s=0.1)
        two = event(1.2, "predicted", "p0", 2, low=1, high=2, duration_s=0.1)
        found = tables([*unpredicted, one, two])
        assert resource_metrics(found)["prediction_accuracy"] == expected
        assert list(found.requests["predict_s"]) == pytest.approx(
            [1.2 - routed for routed in found.requests["routed_s"]]
        )


def test_an_instance_with_more_devices_costs_device_seconds_but_no_resource_time(
    disaggregated: list[Event], event: Make
) -> None:
    ready = event(-0.5, "instance_ready", "p0", role="prefill", num_blocks=100, block_size=16, num_devices=2)
    metrics = resource_metrics(tables([*disaggregated, ready]))
    assert metrics["device_seconds"] == pytest.approx(6.0)
    assert metrics["resource_time_s"] == pytest.approx(2.5)


def test_an_instance_without_work_costs_no_resource_time(disaggregated: list[Event], event: Make) -> None:
    counts = {"num_prefill_tokens": 1, "num_decode_tokens": 0, "num_used_blocks": 1, "num_swapped_bytes": 0}
    early = event(0.5, "iteration", "p2", started_s=0.0, **counts)
    idle = event(0.0, "instance_started", "p1", role="prefill")
    metrics = resource_metrics(tables([*disaggregated, idle, early]))
    known = resource_metrics(tables(disaggregated))
    assert metrics["resource_time_s"] == pytest.approx(2.5), "nor does one whose work came before the first arrival"
    assert metrics["device_seconds"] == pytest.approx(8.0)
    assert metrics["utilisation"] == pytest.approx(1.7 / 8.0)
    for name in ("kv_occupancy_mean", "kv_occupancy_max"):
        assert metrics[name] == pytest.approx(known[name]), "blocks of an unknown whole have no share"


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        (Slo(), 2),
        (Slo(ttft_s=2.0, tpot_s=0.2), 2),
        (Slo(ttft_s=0.5, tpot_s=0.2), 1),
        (Slo(tpot_s=0.1), 1),
        (Slo(ttft_s=0.4), 0),
        (Slo(ttft_s=0.5, tpot_s=0.1), 0),
    ],
)
def test_meeting_every_bound(disaggregated: list[Event], slo: Slo, expected: int) -> None:
    """Request 1 has a TTFT of 0.45 s and a TPOT of 0.18 s; request 2 a TTFT of 2 s, and no TPOT to judge."""
    assert num_attained(tables(disaggregated).requests, slo) == expected


def with_class(log: list[Event], sla_class: str, *requests: int) -> list[Event]:
    """The log with some of its requests under another SLA class."""
    return [
        replace(each, details=each.details | {"sla_class": sla_class})
        if each.kind == "arrived" and each.requests[0] in requests
        else each
        for each in log
    ]


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        (Slo(ttft_s=0.5), {"batch": 0, "default": 1}),
        (Slo(ttft_s=0.5, classes={"batch": {"ttft_s": 2.0}}), {"batch": 1, "default": 1}),
        (Slo(ttft_s=0.5, classes={"batch": {"ttft_s": None}}), {"batch": 1, "default": 1}),
        (Slo(ttft_s=0.5, classes={"batch": {"tpot_s": 1.0}}), {"batch": 0, "default": 1}),
        (Slo(classes={"batch": {"ttft_s": 0.5}, "default": {"tpot_s": 0.1}}), {"batch": 0, "default": 0}),
    ],
)
def test_each_class_is_judged_by_its_own_bounds(disaggregated: list[Event], slo: Slo, expected: dict[str, int]) -> None:
    """Request 2, of class batch, has a TTFT of 2 s; request 1 one of 0.45 s and a TPOT of 0.18 s."""
    found = tables(with_class(disaggregated, "batch", 2), slo)
    assert {name: counts["num_attained"] for name, counts in attainment(found.requests, slo).items()} == expected
    assert num_attained(found.requests, slo) == sum(expected.values())
    metrics = resource_metrics(found)
    assert metrics["slo_attained_share"] == pytest.approx(sum(expected.values()) / 2)
    assert metrics["goodput_per_s"] == pytest.approx(sum(expected.values()) / metrics["makespan_s"])


def test_attainment_counts_all_that_were_submitted(colocated: list[Event]) -> None:
    requests = tables(with_class(colocated, "batch", 1, 2)).requests
    assert attainment(requests, Slo()) == {
        "batch": {"num_submitted": 2, "num_attained": 1, "attained_share": 0.5},
        "default": {"num_submitted": 1, "num_attained": 0, "attained_share": 0.0},
    }
    assert attainment(requests.iloc[:0], Slo()) == {}


def test_shedding_load_does_not_raise_attainment(colocated: list[Event]) -> None:
    metrics = resource_metrics(tables(colocated, Slo(ttft_s=100.0, tpot_s=100.0)))
    assert metrics["slo_attained_share"] == pytest.approx(1 / 3)


def test_nothing_finished(colocated: list[Event]) -> None:
    log = [each for each in colocated if each.kind != "finished"]
    metrics = resource_metrics(tables(log))
    undefined = {name for name, value in metrics.items() if isnan(value)}
    assert undefined == {
        "makespan_s",
        "device_seconds",
        "utilisation",
        "request_throughput_per_s",
        "output_throughput_tokens_per_s",
        "output_throughput_per_device_tokens_per_s",
        "total_throughput_tokens_per_s",
        "goodput_per_s",
        "transfer_bandwidth_bytes_per_s",
        "prediction_accuracy",
    }
    assert metrics["slo_attained_share"] == 0.0
    assert metrics["resource_time_s"] == 3.0, "work for nothing was work"


def test_nothing_at_all() -> None:
    metrics = resource_metrics(tables([]))
    assert {name for name, value in metrics.items() if not isnan(value)} == {
        "device_seconds",
        "resource_time_s",
        "busy_s",
        "num_preemptions",
        "num_retries",
        "num_lost_instances",
        "num_flips",
        "num_swaps",
        "num_recomputations",
        "num_recomputed_tokens",
        "swapped_bytes",
        "transfer_bytes",
    }


def test_work_without_any_arrival_has_no_resource_time(disaggregated: list[Event]) -> None:
    log = [each for each in disaggregated if not each.requests]
    metrics = resource_metrics(tables(log))
    assert isnan(metrics["resource_time_s"]) and metrics["busy_s"] == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("jct", "resource_time", "paper"),
    [(0.60, 1.0, 1.4), (0.53, 0.62, 2.4), (0.77, 1.43, 0.86), (0.81, 1.07, 1.1), (0.50, 0.79, 1.9)],
    ids=["LPLD", "LPHD", "HPLD", "HPHD", "Mixed"],
)
def test_the_papers_five_values_follow_from_its_formula(jct: float, resource_time: float, paper: float) -> None:
    values = perf_per_dollar(jct * 8.0, resource_time * 5.0, 8.0, 5.0)
    assert values.paper == pytest.approx(paper, abs=0.05)
    assert values.usual == pytest.approx(1 / (jct * resource_time))


def test_the_baseline_is_one_and_the_unknown_is_undefined() -> None:
    assert perf_per_dollar(3.0, 2.0, 3.0, 2.0) == (1.0, 1.0)
    assert all(isnan(value) for value in perf_per_dollar(float("nan"), 2.0, 3.0, 2.0))
    assert all(isnan(value) for value in perf_per_dollar(3.0, 0.0, 3.0, 2.0))


@pytest.mark.parametrize("metric", RESOURCE_METRICS, ids=lambda metric: metric.name)
def test_the_readme_defines_every_resource_metric(metric: ResourceMetric) -> None:
    assert tetribench.metrics.__file__ is not None
    readme = Path(tetribench.metrics.__file__).with_name("README.md").read_text()
    row = f"| `{metric.name}` | {metric.title} | {metric.unit} | {metric.better} | {metric.formula} |"
    assert row in readme.splitlines()
