"""The experiment on single decisions: what would have come of each of the other choices, in virtual time."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from tetribench.core.events import Event, EventKind
from tetribench.core.seeds import Generator, generator
from tetribench.experiment import Composed, Setup
from tetribench.metrics.decisions import decision_table
from tetribench.metrics.regret import regret
from tetribench.study.base import Study
from tetribench.study.branches import Key, Later, RecordedRun
from tetribench.study.cells import Cell, cells_of, check_seeds
from tetribench.study.chosen import Choosing
from tetribench.study.simulate import Row, each_cell, named

FACTS = ["time_s", "to", "num_candidates", "num_fitting", "age_s", "is_tied", "num_decodes", "other_num_decodes"]
"""Of the table of decisions, what stands in a row."""


SCOPES = ("own", "all")
"""Regrets are of the JCT of the request, and of the sum of the JCTs of all."""


class RegretStudy(Study):
    """The combinations of the configuration's `axes` that `figure` admits, with every one of `seeds`.

    Of each run `num_decisions` decisions are looked at, drawn by the seed, one out of each of so many equal stretches.
    For every other instance that the dispatcher knew, the run is repeated with that decision changed; `later` says what
    becomes of those after it.
    """

    def __init__(
        self,
        *,
        name: str,
        figure: Choosing,
        out: str,
        num_decisions: int,
        seeds: list[int] | None = None,
        later: Later = Later.kept,
    ) -> None:
        super().__init__(name=name, figure=figure, out=out)
        if num_decisions < 1:
            raise ValueError(f"task.num_decisions={num_decisions}: must be at least 1")
        self.seeds = check_seeds(seeds)
        self.num_decisions = num_decisions
        self.later = later
        self._admits = figure.admits

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        """A row for each decision looked at: what it was, what came of it, and its regrets in seconds.

        Those that begin with `own` are of the JCT of the request; with `all`, of the sum of the JCTs of all requests,
        which is their number times the mean JCT.
        """
        cells = [cell for cell in cells_of(composed.axes(), self.seeds) if self._admits(cell.labels)]

        def rows_of(cell: Cell) -> list[Row]:
            with named(cell):
                rows = self._rows_of_run(composed.variant(cell.options).setup())
            return [{**cell.labels, "seed": cell.seed, **row} for row in rows]

        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(self.name, total=len(cells))
            found = each_cell(rows_of, cells, lambda: progress.advance(bar))
        return pd.DataFrame([row for rows in found for row in rows])

    def _rows_of_run(self, setup: Setup) -> list[Row]:
        run = RecordedRun(setup)
        return decision_rows(run, run.events, self.num_decisions, setup.seed, self.later)


def decision_rows(run: RecordedRun, events: Iterable[Event], num_decisions: int, seed: int, later: Later) -> list[Row]:
    """A row for each decision of `run` looked at; its facts are those that `events` tell of it."""
    table = decision_table(events)
    names = zip(table["request"], table.groupby("request").cumcount(), strict=True)
    facts: dict[Key, Any] = dict(zip(names, table[FACTS].to_dict("records"), strict=True))
    undecided = [key for key, taken in run.taken.items() if len(taken.instances) > 1 and key in facts]
    looked_at = spread(undecided, num_decisions, generator(seed, "regret"))
    return [{"later": later.value, "request": key[0], **facts[key], **_outcome(run, key, later)} for key in looked_at]


def _outcome(run: RecordedRun, key: Key, later: Later) -> Row:
    """What came of a decision, and its regrets."""
    choice, instances = run.taken[key].choice, run.taken[key].instances
    by_choice = {to: jct_s(run.events if to == choice.to else run.branch(key, to, later)) for to in instances}
    happened = by_choice[choice.to]
    row: dict[str, Any] = {"jct_s": happened[key[0]], "mean_jct_s": sum(happened.values()) / len(happened)}
    outcomes = {
        "own": {to: own[key[0]] for to, own in by_choice.items()},
        "all": {to: sum(own.values()) for to, own in by_choice.items()},
    }
    for scope in SCOPES:
        found = regret(choice.to, choice.candidates, outcomes[scope])
        row |= {f"{scope}_{against}_s": value for against, value in found._asdict().items()}
    return row


def spread(keys: Sequence[Key], num: int, rng: Generator) -> list[Key]:
    """One of each of `num` equal stretches of `keys`; all of them where they are fewer."""
    num = min(num, len(keys))
    edges = [place * len(keys) // num for place in range(num + 1)] if num else []
    return [keys[rng.randrange(low, high)] for low, high in pairwise(edges)]


def jct_s(events: Iterable[Event]) -> dict[int, float]:
    """By request, from its arrival to its end."""
    times_s: dict[EventKind, dict[int, float]] = {EventKind.ARRIVED: {}, EventKind.FINISHED: {}}
    for event in events:
        if event.kind in times_s:
            times_s[event.kind][event.requests[0]] = event.time_s
    arrived_s, finished_s = times_s.values()
    return {id: finished_s[id] - arrived_s[id] for id in arrived_s}
