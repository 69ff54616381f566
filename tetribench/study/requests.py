"""The experiment on the workloads themselves: what each seed's requests are, before any system (table 1)."""

import pandas as pd
from rich.console import Console

from tetribench.experiment import Composed, prepare
from tetribench.report.finding import Figure
from tetribench.study.base import Study
from tetribench.study.cells import cells_of, check_seeds


class RequestStudy(Study):
    """The requests of every combination of the configuration's `axes`, with every one of `seeds`; nothing is served."""

    def __init__(self, *, name: str, figure: Figure, out: str, seeds: list[int] | None = None) -> None:
        super().__init__(name=name, figure=figure, out=out)
        self.seeds = check_seeds(seeds)

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """By labels and seed: number, mean lengths and classes of the requests as served, and the memory for them."""
        rows = []
        for cell in cells_of(composed.axes(), self.seeds):
            prepared = prepare(composed.variant(cell.options).setup())
            requests, num = prepared.requests.requests, len(prepared.requests.requests)
            rows.append(
                {
                    **cell.labels,
                    "seed": cell.seed,
                    "num_requests": num,
                    "prompt_tokens": sum(one.num_prompt_tokens for one in requests) / num,
                    "output_tokens": sum(one.max_output_tokens for one in requests) / num,
                    "heavy_prompts": sum(one.label.startswith("HP") for one in requests) / num,
                    "heavy_outputs": sum(one.label.endswith("HD") for one in requests) / num,
                    "num_cut": prepared.requests.num_cut,
                    "kv_tokens": prepared.engine.num_blocks() * prepared.engine.block_size,
                }
            )
        return pd.DataFrame(rows)
