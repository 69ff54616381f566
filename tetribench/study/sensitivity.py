"""The experiment that changes one assumption at a time and asks which claims then hold."""

import pandas as pd
from rich.console import Console

from tetribench.config import conf_folder
from tetribench.experiment import Composed
from tetribench.paper.claims import load_claims
from tetribench.paper.sensitivity import AS_IS, ASSUMPTION, Sensitivity
from tetribench.study.systems import SystemStudy

CLAIMS = "claims.yaml"
"""In the folder of the configuration."""


class SensitivityStudy(SystemStudy):
    """Axes `workload`, those of the claims' cells, and `assumption`, one label of which is `as it is`."""

    def __init__(self, *, name: str, out: str, seeds: list[int] | None = None) -> None:
        super().__init__(name=name, figure=Sensitivity(load_claims(conf_folder() / CLAIMS)), out=out, seeds=seeds)

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        if AS_IS not in composed.axes().get(ASSUMPTION, {}):
            raise ValueError(f"axes.{ASSUMPTION}: must have the label {AS_IS!r}, with which the others are compared")
        return super().rows(composed, console)
