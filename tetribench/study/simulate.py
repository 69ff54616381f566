"""Cells run in memory: in virtual time as many at once as there are cores, in real time one after the other."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tetribench.core.events import EventLog
from tetribench.experiment import Composed, Setup, prepare, serve
from tetribench.metrics.compare import SystemResult, measure
from tetribench.report.finding import Quantity
from tetribench.study.cells import Cell

Row = dict[str, Any]
OnDone = Callable[[], None]


def simulate(setup: Setup) -> SystemResult:
    """The one system of `setup`, measured. Raises ValueError where it is not one, or not in virtual time."""
    if not setup.runtime.is_virtual:
        raise ValueError(f"runtime={setup.runtime.name}: the cells of an experiment run in virtual time; must be sim")
    return _serve(setup, Path())


def _serve(setup: Setup, log_folder: Path) -> SystemResult:
    if len(setup.systems) != 1:
        raise ValueError(
            f"systems={list(setup.systems)}: a cell of an experiment runs one system; an axis has to say which"
        )
    (name,) = setup.systems
    log = EventLog()
    serve(setup, name, prepare(setup), log, log_folder, lambda instances: None, lambda num_ended, num_tokens: None)
    return measure(name, log.events, setup.slo)


class _Work:
    """What each process needs to run any of the cells; inherited by forking, because a configuration cannot travel."""

    def __init__(self, composed: Composed, quantities: Mapping[str, Quantity]) -> None:
        self._composed = composed
        self._quantities = quantities

    def row(self, cell: Cell, run: Callable[[Setup], SystemResult] = simulate) -> Row:
        """Labels, seed and quantities. Raises ValueError, naming the cell, where it cannot be run."""
        try:
            result = run(self._composed.variant(cell.options).setup())
        except ValueError as error:
            raise ValueError(f"{cell}: {error}") from error
        values = {name: quantity(result) for name, quantity in self._quantities.items()}
        return {**cell.labels, "seed": cell.seed, **values}


_work: _Work | None = None


def _inherit(work: _Work) -> None:
    global _work
    _work = work


def _row(cell: Cell) -> Row:
    assert _work is not None
    return _work.row(cell)


def simulate_all(
    composed: Composed, cells: Sequence[Cell], quantities: Mapping[str, Quantity], on_done: OnDone
) -> pd.DataFrame:
    """A row for each cell, in their order, whatever the order in which they end."""
    work = _Work(composed, quantities)
    num_workers = min(len(os.sched_getaffinity(0)), len(cells))
    if num_workers < 2:
        return pd.DataFrame([_counted(work.row(cell), on_done) for cell in cells])
    with _workers(num_workers, work) as pool:
        futures = [pool.submit(_row, cell) for cell in cells]
        for future in futures:
            future.add_done_callback(lambda done: on_done() if _has_worked(done) else None)
        return pd.DataFrame([future.result() for future in futures])


def serve_all(
    composed: Composed, cells: Sequence[Cell], quantities: Mapping[str, Quantity], on_done: OnDone
) -> pd.DataFrame:
    """The same in real time, where each cell has the machine to itself."""
    work = _Work(composed, quantities)
    with tempfile.TemporaryDirectory() as logs:
        run = partial(_serve, log_folder=Path(logs))
        return pd.DataFrame([_counted(work.row(cell, run), on_done) for cell in cells])


@contextmanager
def _workers(num_workers: int, work: _Work) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("fork"), _inherit, (work,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _has_worked(done: "Future[Row]") -> bool:
    return not done.cancelled() and done.exception() is None


def _counted(row: Row, on_done: OnDone) -> Row:
    on_done()
    return row
