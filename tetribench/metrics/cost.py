"""What serving cost in device-seconds, money and energy: sums over the ledger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from tetribench.metrics.energy import EnergyCounters
from tetribench.metrics.latency import Better
from tetribench.metrics.price import Price
from tetribench.metrics.resources import RESOURCE_METRICS, Tables, device_seconds, ratio


@dataclass(frozen=True, slots=True)
class Expenses:
    """A system's run with its ledger; `energy` is None where no device was read."""

    tables: Tables
    ledger: pd.DataFrame
    price: Price
    energy: EnergyCounters | None

    @property
    def num_finished(self) -> int:
        return len(self.tables.finished)

    @property
    def num_output_tokens(self) -> float:
        return float(self.tables.finished["num_output_tokens"].sum())

    @property
    def device_seconds(self) -> float:
        """While it served."""
        return device_seconds(self.tables)

    @property
    def serving_usd(self) -> float:
        return self.price.of(self.device_seconds)

    @property
    def provisioned_device_seconds(self) -> float:
        return float((self.ledger["num_devices"] * self.ledger["provisioned_s"]).sum())

    @property
    def is_opaque(self) -> bool:
        """Some instance does not tell what it does."""
        return bool(self.tables.instances["is_opaque"].any())

    @property
    def busy_device_seconds(self) -> float:
        busy_s = self.ledger["prefill_s"] + self.ledger["decode_s"]
        return float("nan") if self.is_opaque else float((self.ledger["num_devices"] * busy_s).sum())

    @property
    def energy_j(self) -> float:
        """While it served, of the devices that its instances name."""
        devices = set(self.tables.instances["device_uuid"].dropna())
        instances = self.tables.instances
        is_whole = instances["device_uuid"].notna() & (instances["num_devices"] <= 1)  # of several only one is named
        if self.energy is None or not is_whole.all():
            return float("nan")
        return self.energy.between(self.tables.first_arrival_s, self.tables.last_finish_s, devices)


@dataclass(frozen=True, slots=True)
class CostMetric:
    """One number of a system, as `ResourceMetric`."""

    name: str
    title: str
    unit: str
    better: Better
    formula: str
    value: Callable[[Expenses], float]


_LOWER = Better.LOWER

COST_METRICS = (
    CostMetric(
        "provisioned_device_seconds",
        "Device-seconds from start to stop",
        "device-s",
        _LOWER,
        "sum over instances of devices x (instance_stopped - instance_started)",
        lambda run: run.provisioned_device_seconds,
    ),
    CostMetric(
        "busy_device_seconds",
        "Device-seconds that compute",
        "device-s",
        _LOWER,
        "sum over iterations of devices x (ended - started)",
        lambda run: run.busy_device_seconds,
    ),
    CostMetric(
        "device_seconds_per_request",
        "Device-seconds per request",
        "device-s",
        _LOWER,
        "device-seconds / finished requests",
        lambda run: ratio(run.device_seconds, run.num_finished),
    ),
    CostMetric(
        "cost_usd",
        "Cost from start to stop",
        "USD",
        _LOWER,
        "price per device and hour x device-seconds from start to stop / 3600",
        lambda run: run.price.of(run.provisioned_device_seconds),
    ),
    CostMetric(
        "cost_per_request_usd",
        "Cost per request, while serving",
        "USD",
        _LOWER,
        "price per device and hour x device-seconds / 3600 / finished requests",
        lambda run: ratio(run.serving_usd, run.num_finished),
    ),
    CostMetric(
        "cost_per_million_output_tokens_usd",
        "Cost per million output tokens, while serving",
        "USD",
        _LOWER,
        "price per device and hour x device-seconds / 3600 / output tokens of finished requests x 1,000,000",
        lambda run: 1e6 * ratio(run.serving_usd, run.num_output_tokens),
    ),
    CostMetric(
        "energy_j",
        "Energy, while serving",
        "J",
        _LOWER,
        "sum over devices of (energy counter at last finished - energy counter at first arrived)",
        lambda run: run.energy_j,
    ),
    CostMetric(
        "energy_per_request_j",
        "Energy per request",
        "J",
        _LOWER,
        "energy / finished requests",
        lambda run: ratio(run.energy_j, run.num_finished),
    ),
    CostMetric(
        "energy_per_output_token_j",
        "Energy per output token",
        "J",
        _LOWER,
        "energy / output tokens of finished requests",
        lambda run: ratio(run.energy_j, run.num_output_tokens),
    ),
    CostMetric(
        "mean_power_w",
        "Mean power, while serving",
        "W",
        _LOWER,
        "energy / makespan",
        lambda run: ratio(run.energy_j, run.tables.makespan_s),
    ),
)

SYSTEM_METRICS = (*RESOURCE_METRICS, *COST_METRICS)
"""All numbers of a system as a whole."""


def cost_metrics(run: Expenses) -> dict[str, float]:
    """Every cost metric by name."""
    return {metric.name: metric.value(run) for metric in COST_METRICS}


def class_costs(run: Expenses, members: Mapping[str, "pd.Index[int]"]) -> dict[str, dict[str, float]]:
    """By class what its `members` used while the system served.

    A class bears what was idle in proportion to what was computed for it, failed requests included.
    """
    paid, finished = run.tables.requests["busy_device_s"], run.tables.finished.index
    found = {}
    for name, own in members.items():
        num_finished = len(finished.intersection(own))
        busy_s = float("nan") if run.is_opaque else float(paid[own].sum())
        used_s = run.device_seconds * ratio(busy_s, float(paid.sum()))
        found[name] = {
            "busy_device_seconds": busy_s,
            "device_seconds": used_s,
            "device_seconds_per_request": ratio(used_s, num_finished),
            "cost_per_request_usd": ratio(run.price.of(used_s), num_finished),
        }
    return found
