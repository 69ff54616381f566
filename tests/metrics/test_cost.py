from collections.abc import Callable
from math import isnan
from pathlib import Path

import numpy as np
import pytest

import tetribench.metrics
from tetribench.core.events import Event
from tetribench.metrics.compare import SystemResult, measure
from tetribench.metrics.cost import COST_METRICS, CostMetric
from tetribench.metrics.energy import EnergyCounters
from tetribench.metrics.ledger import ACCOUNTS
from tetribench.metrics.price import Price
from tetribench.metrics.slo import Slo

Make = Callable[..., Event]
KEYS = [metric.name for metric in COST_METRICS]
COUNTERS = EnergyCounters(np.array([-5.0, 5.0]), {"GPU-a": np.array([0.0, 100.0]), "GPU-b": np.array([0.0, 1000.0])})


def on_gpus(log: list[Event], **uuids: str | None) -> list[Event]:
    for event in log:
        if event.kind == "instance_ready":
            event.details["device_uuid"] = uuids[event.source]
    return log


def paid_for(log: list[Event], **own: tuple[int, ...]) -> list[Event]:
    """The iterations of an instance are of these requests, the first with a chunk of them all, or without one."""
    for event in log:
        if event.kind == "iteration":
            event.requests = own[event.source][: 1 if event.details["num_prefill_tokens"] else None]
            if event.details["num_prefill_tokens"]:
                event.details["chunks"] = [[0, event.details["num_prefill_tokens"]]]
    return log


def costs(result: SystemResult) -> dict[str, float | None]:
    return {key: result.summary["resources"][key] for key in KEYS}


def test_device_seconds_money_and_energy(disaggregated: list[Event]) -> None:
    """Two requests with 5 tokens in 2 s from 1.0 to 3.0, on two instances that live for 6 s and compute 1.7 s."""
    log = on_gpus(disaggregated, p0="GPU-a", d0="GPU-b")
    result = measure("tetri", log, Slo(), Price(price_per_device_hour=3600.0), COUNTERS)
    assert costs(result) == pytest.approx(
        {
            "provisioned_device_seconds": 12.0,
            "busy_device_seconds": 1.7,
            "device_seconds_per_request": 2.0,
            "cost_usd": 12.0,
            "cost_per_request_usd": 2.0,
            "cost_per_million_output_tokens_usd": 4.0 / 5 * 1e6,
            "energy_j": 20.0 + 200.0,
            "energy_per_request_j": 110.0,
            "energy_per_output_token_j": 44.0,
            "mean_power_w": 110.0,
        }
    )


def test_two_instances_on_one_device_draw_once(disaggregated: list[Event]) -> None:
    log = on_gpus(disaggregated, p0="GPU-a", d0="GPU-a")
    assert costs(measure("tetri", log, Slo(), energy=COUNTERS))["energy_j"] == pytest.approx(20.0)


@pytest.mark.parametrize("energy", [None, COUNTERS])
def test_what_was_not_measured_is_not_nothing(disaggregated: list[Event], energy: EnergyCounters | None) -> None:
    """One instance is on a device that has no counter."""
    result = measure("tetri", on_gpus(disaggregated, p0="GPU-a", d0=None), Slo(), energy=energy)
    unknown = {key for key, value in costs(result).items() if value is None}
    assert unknown == {key for key in KEYS if key.endswith(("usd", "_j", "_w"))}


def test_devices_that_come_and_go_are_charged_for_while_they_are_there(disaggregated: list[Event], event: Make) -> None:
    late = [
        event(1.0 + 0.5, "instance_started", "d1", role="decode"),
        event(2.0, "instance_ready", "d1", role="decode", num_blocks=1, block_size=1, num_devices=2),
        event(2.5, "instance_stopped", "d1"),
    ]
    resources = measure("tetri", [*disaggregated, *late], Slo()).summary["resources"]
    assert resources["device_seconds"] == pytest.approx(4.0 + 2 * 1.0)


def test_a_class_bears_idle_time_as_it_computes(disaggregated: list[Event]) -> None:
    """Request 1, of LPLD, computes 0.3 + 1.0 s of p0's and all of d0's; request 2, of HPLD, takes nothing here."""
    log = paid_for(disaggregated, p0=(1,), d0=(1,))
    result = measure("tetri", log, Slo(), Price(price_per_device_hour=3600.0))
    assert result.summary["cost"]["LPLD"] == pytest.approx(
        {
            "busy_device_seconds": 1.7,
            "device_seconds": 4.0,
            "device_seconds_per_request": 4.0,
            "cost_per_request_usd": 4.0,
        }
    )
    assert result.summary["cost"]["HPLD"]["device_seconds"] == 0.0
    assert result.summary["cost"]["overall"]["cost_per_request_usd"] == pytest.approx(2.0)


def test_a_single_class_is_all_there_is(colocated: list[Event]) -> None:
    assert list(measure("vllm_like", colocated, Slo()).summary["cost"]) == ["overall"]


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan")])
def test_a_price_is_above_nothing(price: float) -> None:
    with pytest.raises(ValueError, match=r"cost\.price_per_device_hour=.*: must be above 0 and finite, or null"):
        Price(price_per_device_hour=price)


def test_without_a_price_nothing_is_known_of_money() -> None:
    assert isnan(Price().of(10.0)) and Price(price_per_device_hour=7.2).of(10.0) == pytest.approx(0.02)


def readme() -> list[str]:
    assert tetribench.metrics.__file__ is not None
    return Path(tetribench.metrics.__file__).with_name("README.md").read_text().splitlines()


@pytest.mark.parametrize("metric", COST_METRICS, ids=lambda metric: metric.name)
def test_the_readme_defines_every_cost(metric: CostMetric) -> None:
    assert f"| `{metric.name}` | {metric.title} | {metric.unit} | {metric.better} | {metric.formula} |" in readme()


def test_the_readme_lists_the_accounts() -> None:
    rows = [f"| `{account.column}` | {account.title} | {account.meaning} |" for account in ACCOUNTS]
    assert [line for line in readme() if line in rows] == rows
