"""Instances that do not tell what they do, such as servers of others: what only they know is undefined, never zero."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite

import pytest

from tests.support.builders import request
from tetribench.core.events import Event
from tetribench.metrics.audit import Asked
from tetribench.metrics.compare import Beside, SystemResult, measure
from tetribench.metrics.resources import RESOURCE_METRICS
from tetribench.metrics.slo import Slo

Make = Callable[..., Event]

REQUESTS = [request(id, 100, 2, prompt_ids=tuple(range(100))) for id in range(3)]
BESIDE = Beside(asked=Asked(requests=REQUESTS), machine={"num_cores": 2, "other_cores": 0.0})


def measured(events: list[Event]) -> SystemResult:
    return measure("server", events, Slo(), beside=BESIDE)


def counted(event: Make, name: str, num_prompt_tokens: int, num_output_tokens: int) -> Event:
    return event(
        4.0,
        "counted",
        name,
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        num_preemptions=0,
    )


def test_the_client_measures_them_like_any_other(opaque: list[Event]) -> None:
    metrics = measured(opaque).summary["metrics"]["overall"]
    assert (metrics["ttft_s"]["mean"], metrics["tpot_s"]["mean"], metrics["jct_s"]["mean"]) == (1.0, 2.0, 3.0)
    assert metrics["itl_s"]["count"] == 1
    assert measured(opaque).summary["accounting"] == {"submitted": 2, "finished": 1, "failed": 1, "unfinished": 0}


def test_stages_are_undefined(opaque: list[Event]) -> None:
    metrics = measured(opaque).summary["metrics"]["overall"]
    for column in ("prefill_s", "ttft_engine_s", "decode_s", "transfer_s"):
        assert metrics[column]["count"] == 0 and metrics[column]["mean"] is None


def test_resources_that_only_they_know_are_undefined(opaque: list[Event]) -> None:
    resources = measured(opaque).summary["resources"]
    inside = {metric.name for metric in RESOURCE_METRICS if metric.is_inside}
    assert {"busy_s", "utilisation", "num_preemptions", "kv_occupancy_max", "transfer_bytes"} <= inside
    for name in (*inside, "resource_time_s", "busy_device_seconds"):
        assert resources[name] is None, name
    assert resources["makespan_s"] == 3.0 and resources["device_seconds"] == 6.0


def test_the_ledger_balances_with_what_is_not_told(opaque: list[Event]) -> None:
    row = measured(opaque).ledger.loc["c0"]
    assert (row["provisioned_s"], row["start_up_s"], row["untold_s"], row["shut_down_s"]) == (7.0, 1.0, 4.0, 2.0)
    assert row["work_s"] == 0.0


def test_no_class_is_said_to_have_cost_nothing(opaque: list[Event]) -> None:
    for each in measured(opaque).summary["cost"].values():
        assert not any(isfinite(value) for value in each.values() if value is not None)


def test_tokens_are_audited_at_the_client_alone(opaque: list[Event]) -> None:
    tokens = measured(opaque).summary["audit"]["tokens"]
    assert (tokens["prompt_sent"], tokens["prompt_computed"], tokens["all_computed"]) == (100, None, None)
    assert (tokens["output_delivered"], tokens["num_wrong"], tokens["num_unaccounted"]) == (2, 0, 0)


def test_what_they_count_themselves_is_compared(opaque: list[Event], event: Make) -> None:
    log = [*opaque, counted(event, "c0", 100, 2), counted(event, "c1", 0, 0)]
    tokens = measured(log).summary["audit"]["tokens"]
    assert (tokens["prompt_computed"], tokens["all_computed"], tokens["num_unaccounted"]) == (100, 2, 0)


@pytest.mark.parametrize("num_tokens", [1, 3])
def test_a_server_that_counts_otherwise_is_found(opaque: list[Event], event: Make, num_tokens: int) -> None:
    """Of requests that all ended well; one that did not may have been computed and never delivered."""
    whole = [one for one in opaque if 2 not in one.requests]
    tokens = measured([*whole, counted(event, "c0", 100, num_tokens), counted(event, "c1", 0, 0)]).summary["audit"]
    assert tokens["tokens"]["num_unaccounted"] == 1


def test_a_server_that_died_uncounted_leaves_the_sum_unknown(opaque: list[Event], event: Make) -> None:
    tokens = measured([*opaque, counted(event, "c0", 100, 2)]).summary["audit"]["tokens"]
    assert (tokens["prompt_computed"], tokens["all_computed"]) == (None, None)


def test_a_wrong_length_needs_no_word_of_the_server(opaque: list[Event]) -> None:
    longer = Beside(asked=Asked(requests=[replace(one, max_output_tokens=9) for one in REQUESTS]), machine={})
    tokens = measure("server", opaque, Slo(), beside=longer).summary["audit"]["tokens"]
    assert tokens["num_wrong"] == 1
    assert tokens["wrong"] == [
        "request 1: prompt of 100 tokens, 100 sent; response of 9, 2 delivered, 2 reported",
    ]
