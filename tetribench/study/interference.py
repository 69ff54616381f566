"""The experiment on interference: what requests do to others beside them, on each system (paper section 3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from tetribench.beyond.interference import Interference
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.experiment import Composed, Setup
from tetribench.report.terminal import frame_table
from tetribench.study.cells import Cell
from tetribench.study.demand import demand
from tetribench.study.simulate import serve_all
from tetribench.study.systems import SystemStudy
from tetribench.study.timing import timer_of
from tetribench.workload.interference import LONGEST_TOKENS, RequestClass

ALONE = "none"
"""The aggressor of victims that have none."""


class InterferenceStudy(SystemStudy):
    """On every system of the configuration's `axes`, which must have as many devices: victims of all classes alone, and
    beside aggressors of each class at each of `loads`, with every one of `seeds`.

    A load is the share of all devices' time that a stream would take at its best, as `Demand` says: the same requests a
    second for every system, whatever it makes of them. The victims are at `victim_load` together, so that they seldom
    meet; they come once the aggressors have come for as long as one stays, and aggressors come until as long after.
    Lengths are those of section 3 times `length_scale`, or as much of that as the model's context holds.

    In real time what iterations take is timed for `seconds`, and then cells run one after the other, each on a fresh
    stack; every second seed goes through them backwards.
    """

    def __init__(
        self,
        *,
        name: str,
        figure: Interference,
        out: str,
        loads: list[float],
        seeds: list[int] | None = None,
        victim_load: float = 0.1,
        length_scale: float = 1.0,
        seconds: float = 10.0,
    ) -> None:
        super().__init__(name=name, figure=figure, out=out, seeds=seeds)
        if not loads or min(loads) <= 0:
            raise ValueError(f"task.loads={loads}: must be at least one number, all above 0")
        positive = {"victim_load": victim_load, "length_scale": length_scale, "seconds": seconds}
        for option, value in positive.items():
            if value <= 0:
                raise ValueError(f"task.{option}={value}: must be positive")
        self._figure = figure
        self.loads = loads
        self.victim_load = victim_load
        self.length_scale = length_scale
        self.seconds = seconds

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """With columns for the load, the aggressors' rate, and the hardware."""
        setup, axes = composed.setup(), composed.axes()
        if list(axes) != ["system"]:
            raise ValueError(f"axes={list(axes)}: a matrix is of one system; must have the axis system and no other")
        self._figure.check(list(axes["system"]))
        systems = self.cells(composed)
        num_devices = _num_devices(composed, systems)
        cells = [cell for streams in self._streams(setup, num_devices) for cell in _beside(systems, streams)]
        cells = self._in_turn(cells)
        if setup.runtime.is_virtual:
            rows = self.simulate(composed, cells, console)
        else:
            with self._progress(cells, console) as on_done:
                rows = serve_all(composed, cells, self._quantities, on_done)
        rates = [cell.options["workload.aggressor_rate"] for cell in cells]
        return rows.assign(aggressor_rate_per_s=rates, hardware=_hardware(setup, num_devices))

    def execute(self, composed: Composed, console: Console) -> None:
        finding = self.find(composed, console)
        _, png = finding.write(Path(self.out))
        console.print(frame_table(*self._figure.in_short(finding.table)))
        for sentence in finding.readings:
            console.print(sentence, highlight=False)
        console.print(f"{png}", soft_wrap=True)

    def _streams(self, setup: Setup, num_devices: int) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """Of the workload without aggressors and with each of them: labels and options."""
        length_scale = min(self.length_scale, setup.model.shape().max_context_tokens / LONGEST_TOKENS)
        known = demand(timer_of(setup, self.name, num_busy=num_devices, seconds=self.seconds), length_scale)
        mean_s = sum(known.device_s.values()) / len(known.device_s)
        always: dict[str, Any] = {
            "workload.victim_rate": self.victim_load * num_devices / mean_s,
            "workload.lead_s": known.stay_s,
            "workload.tail_s": known.stay_s,
            "workload.length_scale": length_scale,
        }
        alone: dict[str, Any] = {"workload.aggressor": None, "workload.aggressor_rate": None}
        streams = [({"aggressor": ALONE, "load": "0"}, always | alone)]
        for aggressor in RequestClass:
            for load in self.loads:
                rate_per_s = load * num_devices / known.device_s[aggressor]
                own: dict[str, Any] = {"workload.aggressor": aggressor.value, "workload.aggressor_rate": rate_per_s}
                streams.append(({"aggressor": aggressor.value, "load": f"{load:g}"}, always | own))
        return streams

    def _in_turn(self, cells: list[Cell]) -> list[Cell]:
        """Seed by seed, there and back: what drifts, drifts for all alike."""
        found = []
        for place, seed in enumerate(self.seeds):
            own = [cell for cell in cells if cell.seed == seed]
            found += own[::-1] if place % 2 else own
        return found


def _beside(systems: list[Cell], streams: tuple[Mapping[str, str], Mapping[str, Any]]) -> list[Cell]:
    labels, options = streams
    return [Cell({**one.labels, **labels}, one.seed, {**one.options, **options}) for one in systems]


def _num_devices(composed: Composed, systems: list[Cell]) -> int:
    """Pieces of the engine's hardware that each system has. Raises ValueError where they differ."""
    found: dict[str, int] = {}
    for cell in systems:
        name = cell.labels["system"]
        if name not in found:
            setup = composed.variant(cell.options).setup()
            found[name] = max(system.plan(setup.engine).num_devices for system in setup.systems.values())
    if len(set(found.values())) != 1:
        sizes = ", ".join(f"{name} has {count}" for name, count in found.items())
        raise ValueError(f"axes: a load means the same for systems of as many devices; {sizes}; must be equal")
    return next(iter(found.values()))


def _hardware(setup: Setup, num_devices: int) -> str:
    if isinstance(setup.engine, CostModelFactory) and setup.runtime.is_virtual:
        return f"{setup.model.name} on {num_devices} x {setup.engine.hardware.name}, virtual time"
    return f"{setup.model.name} on {num_devices} devices of this machine, real time"
