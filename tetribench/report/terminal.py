"""The tables of a report in a terminal; readable at 80 columns, and without colour."""

from dataclasses import replace
from math import isnan
from numbers import Real

import pandas as pd
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from tetribench.report.finding import Finding
from tetribench.report.quantities import DASH, three_digits
from tetribench.report.runs import Run
from tetribench.report.tables import BAND, Cell, Table, comparison_table
from tetribench.report.wording import interval, stamps

SHORT = (
    "mean_ttft_s",
    "p95_ttft_s",
    "mean_tpot_s",
    "mean_jct_s",
    "p95_jct_s",
    "resource_time_s",
    "perf_per_dollar_usual",
)
"""The headline metrics that stand abreast in 80 columns, where many systems stand below each other."""

MAX_NUMBERS = 24
"""Rows of an experiment's table; all of them stand in its file."""

_STYLES = {"better": "green", "worse": "red", "equivalent": "dim", "undecided": "dim", "muted": "dim", "": ""}


def comparison(run: Run) -> RichTable:
    """The headline metrics of a run; says in its caption what the seconds are and what is not known.

    The smallest effect stands in the report alone: 80 columns have no room for it.
    """
    content = comparison_table(run, metrics=SHORT if run.has_many_systems else (), spreads=(BAND,))
    narrow = tuple(column.replace(BAND, BAND.replace(" ", "\n")) for column in content.columns)
    table = to_rich(replace(content, columns=narrow))
    stamp = "".join(f"{stamp}  " for stamp in stamps(run))
    table.title = f"{stamp}{run.facts.workload}: {run.facts.num_requests} requests, {run.time_kind}"
    ratios = f" Below each value its ratio to {run.baseline}." if run.has_many_systems else ""
    table.caption = f"{content.note}{ratios} {interval(run)}".lstrip()
    return table


def to_rich(table: Table) -> RichTable:
    """Row names to the left, numbers to the right; a name that repeats the one above is left out."""
    padding = (0, 0) if table.is_dense else (0, 1)
    shown = RichTable(
        box=box.SIMPLE_HEAD,
        title=table.title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=padding,
    )
    shown.caption, shown.caption_justify = table.note or None, "left"
    for head in table.heads:
        shown.add_column(head, overflow="fold", no_wrap=table.is_dense)
    for column in table.columns:
        shown.add_column(column, justify="right", overflow="fold", min_width=_longest_word(column) * table.is_dense)
    above: tuple[str, ...] = ()
    for row in table.rows:
        is_repeated = len(row.heads) > 1 and row.heads[:1] == above[:1]
        heads = ("", *row.heads[1:]) if is_repeated else row.heads
        shown.add_row(*heads, *(_text(cell) for cell in row.cells))
        above = row.heads
    return shown


def numbers(finding: Finding) -> RichTable:
    """An experiment's table, its first rows where it is long."""
    frame = finding.table.head(MAX_NUMBERS)
    shown = frame_table(finding.title, frame)
    num_left = len(finding.table) - len(frame)
    shown.caption = f"{num_left} more rows in {finding.name}.csv" if num_left else None
    shown.caption_justify = "left"
    return shown


def frame_table(title: str, frame: pd.DataFrame) -> RichTable:
    """Columns as they are called; numbers to the right, with three digits."""
    shown = RichTable(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in frame.columns:
        is_number = pd.api.types.is_numeric_dtype(frame[name])
        shown.add_column(str(name), justify="right" if is_number else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        shown.add_row(*(_shown(value) for value in row))
    return shown


def _shown(value: object) -> str:
    if isinstance(value, Real) and not isinstance(value, bool):
        return DASH if isnan(value) else three_digits(float(value))
    return str(value)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()))


def _text(cell: Cell) -> Text:
    word = f" {cell.verdict}" if cell.is_spelled and cell.verdict else ""
    text = Text(cell.text + word, style=_STYLES[cell.verdict])
    return text if cell.below is None else text + Text("\n") + _text(cell.below)
