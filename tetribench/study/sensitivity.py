"""The experiment that changes one assumption at a time and asks which claims then hold."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console

from tetribench.config import conf_folder
from tetribench.experiment import Composed
from tetribench.paper.claims import load_claims
from tetribench.paper.sensitivity import AS_IS, ASSUMPTION, Sensitivity
from tetribench.study.cells import Cell, cells_of
from tetribench.study.systems import SystemStudy

CLAIMS = "claims.yaml"
"""In the folder of the configuration."""


OWNERS = {"system.vllm_like_cap16.": "vllm_like_cap16", "prefill.": "ts_nvlink"}
"""By the start of an option, the one system that has it: the cells of the others are those as they are."""


class SensitivityStudy(SystemStudy):
    """Axes `workload`, those of the claims' cells, `system`, and `assumption`, one label of which is `as it is`."""

    def __init__(self, *, name: str, out: str, seeds: list[int] | None = None) -> None:
        super().__init__(name=name, figure=Sensitivity(load_claims(conf_folder() / CLAIMS)), out=out, seeds=seeds)

    def cells(self, composed: Composed) -> list[Cell]:
        """Those in which the assumption changes something."""
        assumptions = composed.axes().get(ASSUMPTION, {})
        if AS_IS not in assumptions:
            raise ValueError(f"axes.{ASSUMPTION}: must have the label {AS_IS!r}, with which the others are compared")
        cells = cells_of(composed.axes(), self.seeds)
        return [cell for cell in cells if _touches(assumptions[cell.labels[ASSUMPTION]], cell.labels["system"])]

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """Of all cells; those that were left out have the numbers as it is."""
        rows = super().rows(composed, console)
        known = {_key(row): row for row in rows.to_dict("records")}
        found = []
        for cell in cells_of(composed.axes(), self.seeds):
            own: dict[Any, Any] = {**cell.labels, "seed": cell.seed}
            row = known.get(_key(own)) or known[_key({**own, ASSUMPTION: AS_IS})]
            found.append(row | own)
        return pd.DataFrame(found)


def _touches(options: Mapping[str, Any], system: str) -> bool:
    owners = [next((OWNERS[start] for start in OWNERS if option.startswith(start)), system) for option in options]
    return not owners or system in owners


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in ("workload", "system", ASSUMPTION, "seed"))
