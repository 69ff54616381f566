"""The tables of a report, independent of where they are shown: each is rows of cells that know their full value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from tetribench.metrics.compare import HEADLINE_PERCENT
from tetribench.metrics.latency import PERCENTILES, Better, num_samples_needed
from tetribench.report.quantities import DASH, Scale, ratio_text, scale_for
from tetribench.report.runs import Run

SAID_IN_TITLE = frozenset({"ratio", "requests", "preemptions", "device-s", "retries", "instances", "flips"})

SAME_WITHIN = 0.005
"""A ratio this near to 1 prints as 1.00 and is called neither better nor worse."""


BAND = "A/A band"
SMALLEST = "smallest effect"
SPREADS = {BAND: "band", SMALLEST: "smallest"}
"""Columns of the comparison that say how sure it is, by what they are called in metrics.json."""

SPREAD_NOTES = {
    BAND: f"{BAND}: how far the same system came from itself; what lies inside is grey.",
    SMALLEST: "Smallest effect: the change that this experiment would have found with a chance of 80%.",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """`path` leads to `value` in metrics.json, where it is one of its numbers; `verdict` is better, worse or empty.

    `is_spelled` shows the verdict as a word too; `below` is shown under the text.
    """

    text: str
    value: float | None = None
    path: tuple[str | int, ...] = ()
    verdict: str = ""
    is_spelled: bool = False
    below: "Cell | None" = None


@dataclass(frozen=True, slots=True)
class Row:
    """`heads` are the row's names, one for each of the table's head columns."""

    heads: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`heads` name the columns of row names, `columns` those of cells; `note` explains what is missing.

    `is_dense` says that there are many columns, which are to be narrow.
    """

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    note: str = ""
    is_dense: bool = False

    def transposed(self, head: str) -> "Table":
        """Rows as columns; `head` names what the columns were."""
        assert len(self.heads) == 1, "rows with several names would make columns with several names"
        cells = zip(*(row.cells for row in self.rows), strict=True)
        rows = [Row((column,), own) for column, own in zip(self.columns, cells, strict=True)]
        columns = tuple(row.heads[0] for row in self.rows)
        return Table(self.title, (head,), columns, rows, self.note, is_dense=True)

    @property
    def groups(self) -> list[list[Row]]:
        """Rows that follow one another and share their first name; each alone where there is only one name."""
        if len(self.heads) == 1:
            return [[row] for row in self.rows]
        return [list(rows) for _, rows in groupby(self.rows, key=lambda row: row.heads[0])]


def comparison_table(
    run: Run,
    document: dict[str, Any] | None = None,
    metrics: Sequence[str] = (),
    spreads: Sequence[str] = tuple(SPREADS),
) -> Table:
    """The headline metrics, or those named: a column for each system, and each one's ratio to the baseline.

    The ratio has a column of its own where there is one, else it stands below the value. Then come those of `spreads`
    that are known. Where the systems are too many to stand abreast they are the rows, and a verdict is a colour only.
    """
    document = document or run.document
    systems = [result.system for result in run.results]
    columns = [*systems, f"{run.others[0]} / {run.baseline}"] if len(run.others) == 1 else list(systems)
    spreads = [name for name in spreads if _is_known(document["comparison"], SPREADS[name])]
    note = percentile_note((result.accounting.finished for result in run.results), HEADLINE_PERCENT)
    note = " ".join(filter(None, (note, *(SPREAD_NOTES[name] for name in spreads))))
    table = Table("Comparison", ("metric",), (*columns, *spreads), note=note)
    for number, row in enumerate(document["comparison"]):
        if metrics and row["metric"] not in metrics:
            continue
        scale, path = scale_for(row["values"].values(), row["unit"]), ("comparison", number)
        ratios = {
            system: Cell(
                ratio_text(ratio),
                ratio,
                (*path, "ratios", system),
                outcome(row["tests"][system], ratio, row["better"]),
                is_spelled=not run.has_many_systems,
                below=_interval(row["tests"][system]),
            )
            for system, ratio in row["ratios"].items()
        }
        cells = {system: value_cell(scale, row["values"][system], (*path, "values", system)) for system in systems}
        grey = {system: replace(cells[system], verdict="muted") for system in ratios if _is_inside_band(row, system)}
        cells |= grey
        if len(run.others) == 1:
            shown = [*cells.values(), ratios.get(run.others[0], Cell(""))]
        else:
            shown = [replace(cell, below=ratios.get(system)) for system, cell in cells.items()]
        shown += [_spread_cell(row["tests"], SPREADS[name], path) for name in spreads]
        unit = "" if row["unit"] in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((row["title"] + unit,), tuple(shown)))
    return table.transposed("system") if run.has_many_systems else table


def outcome(test: Mapping[Any, Any], ratio: float | None, better: str) -> str:
    """What is known of a ratio; of a single repeat which way it points, if it leaves the A/A band."""
    return str(test["outcome"]) or ("undecided" if test["is_inside_band"] else verdict(ratio, better))


def _is_known(rows: Sequence[dict[str, Any]], key: str) -> bool:
    return any(test[key] is not None for row in rows for test in row["tests"].values())


def _is_inside_band(row: dict[str, Any], system: str) -> bool:
    return bool(row["tests"][system]["is_inside_band"])


def _spread_cell(tests: dict[str, dict[str, Any]], key: str, path: tuple[str | int, ...]) -> Cell:
    """Of several systems the largest, which holds for all of them."""
    found = {system: test[key] for system, test in tests.items() if test[key] is not None}
    if not found:
        return Cell(DASH if tests else "")
    system = max(found, key=lambda system: found[system])
    return Cell(f"{'±' * (key == 'band')}{found[system]:.1%}", found[system], (*path, "tests", system, key), "muted")


def _interval(test: dict[str, Any]) -> Cell | None:
    return None if test["low"] is None else Cell(f"[{test['low']:.2f}, {test['high']:.2f}]", verdict="muted")


def verdict(ratio: float | None, better: str) -> str:
    """Which way a ratio to the baseline points; empty where it is undefined or 1.00."""
    if ratio is None or abs(ratio - 1) < SAME_WITHIN:
        return ""
    return "better" if (ratio < 1) == (better == Better.LOWER) else "worse"


def value_cell(scale: Scale, value: float | None, path: tuple[str | int, ...]) -> Cell:
    return Cell(scale.text(value), value, path)


def percentile_needs() -> str:
    """How many samples each percentile needs."""
    return ", ".join(f"p{percent} needs {num_samples_needed(percent)}" for percent in PERCENTILES)


def percentile_note(num_samples: Iterable[int], highest_percent: int) -> str:
    """Says why percentiles are missing, if one up to the highest shown is."""
    is_whole = min(num_samples) >= num_samples_needed(highest_percent)
    return "" if is_whole else f"{DASH}: undefined, or too few samples for a percentile ({percentile_needs()})."
