"""The experiment on what is drawn, before any system: lengths of the paper's three tasks (figure 1)."""

import numpy as np
import pandas as pd
from rich.console import Console

from tetribench.experiment import Composed
from tetribench.report.finding import Figure
from tetribench.study.base import Study
from tetribench.workload.lengths import OUTPUT_TOKENS, PROMPT_TOKENS, QUANTILES, LengthClass
from tetribench.workload.seeds import generator

SHARES = sorted({*np.linspace(0.01, 0.99, 99).round(2).tolist(), *QUANTILES})


class LengthStudy(Study):
    """Quantiles of `num_lengths` lengths drawn for each task and each of prompt and generation, before any cut."""

    def __init__(self, *, name: str, figure: Figure, out: str, num_lengths: int = 20_000, seed: int = 0) -> None:
        super().__init__(name=name, figure=figure, out=out)
        if num_lengths < 1:
            raise ValueError(f"task.num_lengths={num_lengths}: must be at least 1")
        self.num_lengths = num_lengths
        self.seed = seed

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """By task, part and share: the length that this share of those drawn does not exceed."""
        rows = []
        for part, distributions in {"prompt": PROMPT_TOKENS, "generation": OUTPUT_TOKENS}.items():
            for task, distribution in distributions.items():
                rng = generator(self.seed, f"lengths/{part}/{task.value}")
                drawn = distribution.sample(rng, self.num_lengths, LengthClass.any)
                tokens = np.quantile(drawn, SHARES, method="inverted_cdf")
                rows += [(task.value, part, share, int(one)) for share, one in zip(SHARES, tokens, strict=True)]
        return pd.DataFrame(rows, columns=["task", "part", "share", "drawn_tokens"])
