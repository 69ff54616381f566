"""Write what benchmarks measured beside them: a table, a figure for each unit, and a page with both."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from tetribench.report.figure_marks import draw_marks
from tetribench.report.figures import Drawn, keep
from tetribench.report.html import render
from tetribench.report.marks import Judged, Mark, Unit, Verdict, judge, read_outcomes
from tetribench.report.quantities import DASH, three_digits
from tetribench.report.style import drawing
from tetribench.report.tables import Cell, Row, Table

LOOKS = {
    Verdict.met: ("better", "green"),
    Verdict.missed: ("worse", "red"),
    Verdict.failed: ("worse", "bold red"),
    Verdict.not_run: ("muted", "dim"),
    Verdict.no_mark: ("muted", "dim"),
}
"""How a verdict is shown: its class in the page, its colour in a terminal."""

UNITS: tuple[Unit, ...] = ("ratio", "ms", "requests")

CAPTION = (
    "A symbol is the median of a row's rounds, the line through it their range, a stroke the mark, by which the median "
    "is judged."
)

COLUMNS = ("median", "range", "rounds", "mark", "verdict")


def write_marks(folder: Path, marks: Sequence[Mark]) -> list[Judged]:
    """Judge what the benchmarks in `folder` measured: marks.csv, marks.html and figures/ beside them.

    Raises ValueError as `read_outcomes` does.
    """
    judged = judge(marks, read_outcomes(folder))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    _write_csv(folder / "marks.csv", judged)
    machine = _environment(folder)
    subtitle = " · ".join([count(judged), *machine[:1]])
    with drawing():
        drawn = [
            keep(draw_marks(judged, unit, subtitle), figures, f"marks_{unit}", CAPTION)
            for unit in UNITS
            if any(one.rounds and one.mark.unit == unit for one in judged)
        ]
    (folder / "marks.html").write_text(_page(judged, drawn, machine), encoding="utf-8")
    return judged


def count(judged: Sequence[Judged]) -> str:
    """How many marks are met, missed and so on, in words."""
    numbers = {verdict: sum(one.verdict is verdict for one in judged) for verdict in Verdict}
    return ", ".join(f"{number} {verdict.value}" for verdict, number in numbers.items() if number)


def marks_table(judged: Sequence[Judged]) -> RichTable:
    """For a terminal; a row that was not measured has the reason below it, unless the row above has the same."""
    shown = RichTable(box=box.SIMPLE_HEAD, title="Marks", title_justify="left", title_style="bold", pad_edge=False)
    shown.add_column("row", overflow="fold")
    for head in COLUMNS:
        shown.add_column(head, justify="left" if head == "verdict" else "right", no_wrap=True)
    reason = ""
    for one in judged:
        name = Text(one.mark.row)
        if one.reason not in ("", reason):
            name.append(f"\n{one.reason}", style="dim")
        reason = one.reason
        shown.add_row(name, *_texts(one)[:-1], Text(one.verdict.value, style=LOOKS[one.verdict][1]))
    shown.caption, shown.caption_justify = count(judged), "left"
    return shown


def _texts(one: Judged) -> tuple[str, ...]:
    """By `COLUMNS`."""
    mark = DASH if one.mark.bound is None else one.mark.bound.in_words(one.mark.unit)
    if one.median is None:
        return DASH, DASH, "0", mark, one.verdict.value
    ends = f"{three_digits(min(one.rounds))} to {three_digits(max(one.rounds))}"
    return three_digits(one.median), ends, str(len(one.rounds)), mark, one.verdict.value


def _write_csv(path: Path, judged: Sequence[Judged]) -> None:
    """Numbers in full; `rounds` are those of the row, apart by spaces."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["row", "against", "unit", "median", "lowest", "highest", "rounds", "mark", "verdict", "reason"]
        )
        for one in judged:
            numbers = ("", "", "") if one.median is None else (one.median, min(one.rounds), max(one.rounds))
            mark = "" if one.mark.bound is None else one.mark.bound.in_words(one.mark.unit)
            rounds = " ".join(map(repr, one.rounds))
            about = (one.mark.row, one.mark.against, one.mark.unit)
            writer.writerow([*about, *numbers, rounds, mark, one.verdict.value, one.reason])


def _environment(folder: Path) -> list[str]:
    """What the machine and the code were, in words; nothing where that was not kept."""
    path = folder / "environment.json"
    if not path.is_file():
        return []
    facts: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    machine = facts.get("machine", {})
    commit = facts.get("commit", "unknown")[:12] + ", changed" * bool(facts.get("dirty"))
    return [f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores', '?')} cores", f"commit {commit}"]


def _page(judged: Sequence[Judged], figures: Sequence[Drawn], machine: Sequence[str]) -> str:
    table = Table("Marks", ("row", "against"), COLUMNS, is_dense=True)
    for one in judged:
        cells = [Cell(text) for text in _texts(one)]
        cells[-1] = Cell(one.verdict.value, verdict=LOOKS[one.verdict][0])
        table.rows.append(Row((one.mark.row, one.mark.against or DASH), tuple(cells)))
    return render(
        "marks.html.jinja",
        title="Benchmarks against their marks",
        sentence=f"{count(judged)}.",
        machine=machine,
        figures=figures,
        table=table,
        reasons=[(one.mark.row, one.verdict.value, one.reason) for one in judged if one.reason],
    )
