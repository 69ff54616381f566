"""Cells run in memory: in virtual time as many at once as there are cores, in real time one after the other."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from tetribench.core.events import EventLog
from tetribench.experiment import Composed, Setup, prepare, serve
from tetribench.metrics.compare import SystemResult, measure
from tetribench.report.finding import Quantity
from tetribench.study.cells import Cell

Row = dict[str, Any]
OnDone = Callable[[], None]
Result = TypeVar("Result")


def simulate(setup: Setup) -> SystemResult:
    """The one system of `setup`, measured. Raises ValueError where it is not one, or not in virtual time."""
    only_system(setup)
    return _serve(setup, Path())


def only_system(setup: Setup) -> str:
    """The name of the one system of `setup`. Raises ValueError where it is not one, or not in virtual time."""
    if not setup.runtime.is_virtual:
        raise ValueError(f"runtime={setup.runtime.name}: the cells of an experiment run in virtual time; must be sim")
    return _name_of(setup)


def _serve(setup: Setup, log_folder: Path) -> SystemResult:
    name, log = _name_of(setup), EventLog()
    serve(setup, name, prepare(setup), log, log_folder, lambda instances: None, lambda num_ended, num_tokens: None)
    return measure(name, log.events, setup.slo)


def _name_of(setup: Setup) -> str:
    if len(setup.systems) != 1:
        raise ValueError(
            f"systems={list(setup.systems)}: a cell of an experiment runs one system; an axis has to say which"
        )
    (name,) = setup.systems
    return name


@contextmanager
def named(cell: Cell) -> Iterator[None]:
    """What cannot be run says which cell it was."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{cell}: {error}") from error


class _Work:
    """What runs any of the cells."""

    def __init__(self, composed: Composed, quantities: Mapping[str, Quantity]) -> None:
        self._composed = composed
        self._quantities = quantities

    def row(self, cell: Cell, run: Callable[[Setup], SystemResult] = simulate) -> Row:
        """Labels, seed and quantities. Raises ValueError, naming the cell, where it cannot be run."""
        with named(cell):
            result = run(self._composed.variant(cell.options).setup())
        values = {name: quantity(result) for name, quantity in self._quantities.items()}
        return {**cell.labels, "seed": cell.seed, **values}


_work: Callable[[Cell], Any] | None = None
"""Of each process; inherited by forking, because a configuration cannot travel."""


def _inherit(work: Callable[[Cell], Any]) -> None:
    global _work
    _work = work


def _do(cell: Cell) -> Any:
    assert _work is not None
    return _work(cell)


def simulate_all(
    composed: Composed, cells: Sequence[Cell], quantities: Mapping[str, Quantity], on_done: OnDone
) -> pd.DataFrame:
    """A row for each cell, in their order, whatever the order in which they end."""
    return pd.DataFrame(each_cell(_Work(composed, quantities).row, cells, on_done))


def each_cell(work: Callable[[Cell], Result], cells: Sequence[Cell], on_done: OnDone) -> list[Result]:
    """What `work` makes of each cell, in their order; as many at once as there are cores, each in a forked process."""
    num_workers = min(len(os.sched_getaffinity(0)), len(cells))
    if num_workers < 2:
        return [_counted(work(cell), on_done) for cell in cells]
    with _workers(num_workers, work) as pool:
        futures = [pool.submit(_do, cell) for cell in cells]
        for future in futures:
            future.add_done_callback(lambda done: on_done() if _has_worked(done) else None)
        return [future.result() for future in futures]


def serve_all(
    composed: Composed, cells: Sequence[Cell], quantities: Mapping[str, Quantity], on_done: OnDone
) -> pd.DataFrame:
    """The same in real time, where each cell has the machine to itself."""
    work = _Work(composed, quantities)
    with tempfile.TemporaryDirectory() as logs:
        run = partial(_serve, log_folder=Path(logs))
        return pd.DataFrame([_counted(work.row(cell, run), on_done) for cell in cells])


@contextmanager
def _workers(num_workers: int, work: Callable[[Cell], Any]) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("fork"), _inherit, (work,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _has_worked(done: "Future[Any]") -> bool:
    return not done.cancelled() and done.exception() is None


def _counted(result: Result, on_done: OnDone) -> Result:
    on_done()
    return result
