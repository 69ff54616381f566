"""The tables of a report in a terminal; readable at 80 columns with two systems, and without colour."""

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from tetribench.report.arms import difference_table
from tetribench.report.runs import Run
from tetribench.report.tables import Cell, Table, class_table, comparison_table

_STYLES = {"better": "green", "worse": "red", "": ""}


def comparison(run: Run) -> RichTable:
    """The headline metrics of a run; says in its caption what the seconds are and what is not known."""
    content = comparison_table(run)
    table = to_rich(content)
    stamp = "" if run.is_complete else f"{run.status.state.upper()}  "
    table.title = f"{stamp}{run.facts.workload}: {run.facts.num_requests} requests, {run.time_kind}"
    table.caption = f"{content.note} One run, no interval.".lstrip()
    return table


def by_class(run: Run, column: str) -> RichTable:
    """The distribution of one latency metric, such as `ttft_s`, for each class and system."""
    return to_rich(class_table(run.results, column))


def differences(run: Run) -> RichTable:
    """The options that are not the same in all systems."""
    return to_rich(difference_table(run.manifests))


def to_rich(table: Table) -> RichTable:
    """Row names to the left, numbers to the right; a name that repeats the one above is left out."""
    shown = RichTable(box=box.SIMPLE_HEAD, title=table.title, title_justify="left", title_style="bold", pad_edge=False)
    shown.caption, shown.caption_justify = table.note or None, "left"
    for head in table.heads:
        shown.add_column(head, overflow="fold")
    for column in table.columns:
        shown.add_column(column, justify="right", overflow="fold")
    above: tuple[str, ...] = ()
    for row in table.rows:
        is_repeated = len(row.heads) > 1 and row.heads[:1] == above[:1]
        heads = ("", *row.heads[1:]) if is_repeated else row.heads
        shown.add_row(*heads, *(_text(cell) for cell in row.cells))
        above = row.heads
    return shown


def _text(cell: Cell) -> Text:
    text = Text(f"{cell.text} {cell.verdict}".rstrip(), style=_STYLES[cell.verdict])
    return text if cell.below is None else text + Text("\n") + _text(cell.below)
