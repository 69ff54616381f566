"""What every experiment does: rows, then a finding, written and shown."""

from abc import ABC, abstractmethod
from pathlib import Path

import pandas as pd
from rich.console import Console

from tetribench.experiment import Composed
from tetribench.report.finding import Figure, Finding, finding_of
from tetribench.report.terminal import numbers


class Study(ABC):
    """An experiment called `name`, drawn as `figure` into the folder `out`."""

    def __init__(self, *, name: str, figure: Figure, out: str) -> None:
        self.name = name
        self.figure = figure
        self.out = out

    @abstractmethod
    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """Measure what `figure` is drawn from."""

    def find(self, composed: Composed, console: Console) -> Finding:
        return finding_of(self.figure, self.name, self.rows(composed, console))

    def execute(self, composed: Composed, console: Console) -> None:
        finding = self.find(composed, console)
        _, png = finding.write(Path(self.out))
        console.print(numbers(finding))
        for sentence in finding.readings:
            console.print(sentence, highlight=False)
        console.print(f"{png}", soft_wrap=True)
