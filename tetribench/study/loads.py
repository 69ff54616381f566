"""Experiments over open-loop arrival rates, given as loads relative to what the hardware could do at best."""

from math import ceil

import pandas as pd
from rich.console import Console

from tetribench.engine.cost_engine import CostModelFactory
from tetribench.experiment import Composed, Setup, prepare
from tetribench.report.finding import SystemFigure
from tetribench.study.cells import Cell
from tetribench.study.reference import Reference, reference
from tetribench.study.systems import SystemStudy


class LoadStudy(SystemStudy):
    """Every combination of the configuration's `axes`, at each of `loads`, with every one of `seeds`.

    Load 1 is the rate that would keep every instance busy if it did both phases and never waited, with a batch that
    just keeps the bound on TPOT (`Reference.capacity_per_s`): an ideal, so that real systems give in below it. A
    request is good within `ttft_slowdown` and `tpot_slowdown` of the mean request on an instance of its own. The
    defaults, 6 and 5, are our choice; results depend on them.
    Arrivals last `num_stays` times as long as a request decodes at load 1, and are at least `min_requests`.
    """

    def __init__(
        self,
        *,
        name: str,
        figure: SystemFigure,
        out: str,
        loads: list[float],
        seeds: list[int] | None = None,
        ttft_slowdown: float = 6.0,
        tpot_slowdown: float = 5.0,
        num_stays: float = 4.0,
        min_requests: int = 240,
    ) -> None:
        super().__init__(name=name, figure=figure, out=out, seeds=seeds)
        if not loads or min(loads) <= 0:
            raise ValueError(f"task.loads={loads}: must be at least one number, all above 0")
        for option, slowdown in {"ttft_slowdown": ttft_slowdown, "tpot_slowdown": tpot_slowdown}.items():
            if slowdown <= 1:
                raise ValueError(f"task.{option}={slowdown}: must be above 1")
        if num_stays < 0:
            raise ValueError(f"task.num_stays={num_stays}: must not be negative")
        if min_requests < 4:
            raise ValueError(f"task.min_requests={min_requests}: must be at least 4")
        self.loads = loads
        self._slowdowns = ttft_slowdown, tpot_slowdown
        self._num_stays = num_stays
        self._min_requests = min_requests

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """With columns for the load, the rate, the bounds and the devices of each cell."""
        cells, facts = [], []
        at_lengths: dict[frozenset[tuple[str, str]], Reference] = {}
        sizes: dict[frozenset[tuple[str, str]], tuple[int, int]] = {}
        for cell in self.cells(composed):
            labels = frozenset(cell.labels.items())
            if labels not in sizes:
                setup = composed.variant(cell.options).setup()
                if not isinstance(setup.engine, CostModelFactory):
                    raise ValueError("engine=hf: loads are relative to a cost model; must be cost_model")
                sizes[labels] = _size(setup, setup.engine)
                lengths = frozenset((axis, label) for axis, label in labels if axis != "system")
                at_lengths[labels] = at_lengths.get(lengths) or self._reference(setup, setup.engine)
                at_lengths[lengths] = at_lengths[labels]
            for load in self.loads:
                found = self._at_load(cell, load, at_lengths[labels], sizes[labels])
                cells.append(found[0])
                facts.append(found[1])
        rows = self.simulate(composed, cells, console)
        return pd.concat([rows, pd.DataFrame(facts)], axis="columns")

    def _reference(self, setup: Setup, engine: CostModelFactory) -> Reference:
        return reference(engine, prepare(setup).requests.requests, *self._slowdowns)

    def _at_load(
        self, cell: Cell, load: float, known: Reference, size: tuple[int, int]
    ) -> tuple[Cell, dict[str, float | int | None]]:
        num_pieces, num_devices = size
        rate_per_s = load * known.capacity_per_s * num_pieces
        num_requests = max(self._min_requests, ceil(self._num_stays * known.stay_s * rate_per_s))
        options = {
            "workload.request_rate": rate_per_s,
            "workload.num_requests": num_requests,
            "slo.ttft_s": known.slo.ttft_s,
            "slo.tpot_s": known.slo.tpot_s,
        }
        facts = {
            "load": load,
            "rate_per_s": rate_per_s,
            "num_devices": num_devices,
            "num_requests": num_requests,
            "slo_ttft_s": known.slo.ttft_s,
            "slo_tpot_s": known.slo.tpot_s,
        }
        return Cell(cell.labels, cell.seed, cell.options | options), facts


def _size(setup: Setup, engine: CostModelFactory) -> tuple[int, int]:
    """Pieces of the engine's hardware that the system has, and devices."""
    (system,) = setup.systems.values()
    num_pieces = system.plan(engine).num_devices
    return num_pieces, num_pieces * engine.info().num_devices
