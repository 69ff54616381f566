"""The report of all experiments: claims first, then figure by figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

import tetribench
from tetribench.paper.claims import NotEvaluated, Size
from tetribench.paper.pairs import percent
from tetribench.paper.verdicts import Judged, Verdict, counts, ours_text, printed_text
from tetribench.report.figures import Drawn, embedded
from tetribench.report.finding import Finding
from tetribench.report.html import render
from tetribench.report.quantities import DASH, three_digits
from tetribench.report.tables import Cell, Row, Table

LOOKS = {
    Verdict.reproduced: ("better", "green"),
    Verdict.direction_only: ("amber", "yellow"),
    Verdict.not_reproduced: ("worse", "red"),
    Verdict.not_evaluated: ("muted", "bright_black"),
}
"""How a verdict is shown: its class in the page, its colour in a terminal."""

MAX_ROWS = 40
"""Of a table in the page; all of them stand in its file."""

SENSITIVITY = "sensitivity"


@dataclass(frozen=True, slots=True)
class _Line:
    """A claim in the page."""

    id: str
    where: str
    says: str
    notes: list[str]
    printed: str
    ours: str
    verdict: str
    look: str


@dataclass(frozen=True, slots=True)
class _Section:
    """An experiment in the page."""

    name: str
    title: str
    readings: list[str]
    drawing: Drawn
    table: Table


def page(
    findings: Sequence[Finding], judged: Sequence[Judged], failures: Mapping[str, str], folder: Path, made: str
) -> str:
    """Self-contained: the drawings are those that were written into `folder`. `made` is its one line that changes."""
    evaluated = [_line(one) for one in judged if one.verdict is not Verdict.not_evaluated]
    return render(
        "paper.html.jinja",
        title="The paper, reproduced",
        counts=[(verdict.value, number, LOOKS[verdict][0]) for verdict, number in counts(judged).items()],
        evaluated=evaluated,
        not_evaluated=[_line(one) for one in judged if one.verdict is Verdict.not_evaluated],
        conditions=next((one.readings for one in findings if one.name == SENSITIVITY), []),
        sections=[_section(finding, folder) for finding in findings],
        failures=dict(failures),
        made=made,
    )


def stamp(now: datetime, commit: Mapping[str, Any]) -> str:
    """When and from what the report was made, in one line."""
    source = f" at commit {commit['commit'][:12]}" + " with changes" * commit["dirty"] if commit else ""
    return f"Made on {now:%Y-%m-%d} by tetribench {tetribench.__version__}{source}."


def claims_numbers(judged: Sequence[Judged]) -> RichTable:
    """The claims in a terminal of 80 columns, with the counts below them."""
    shown = RichTable(box=box.SIMPLE_HEAD, title="Claims", title_justify="left", title_style="bold", pad_edge=False)
    for head in ("claim", "printed", "ours", "verdict"):
        shown.add_column(head, justify="left" if head in ("claim", "verdict") else "right", no_wrap=True)
    for one in judged:
        verdict = Text(one.verdict.value, style=LOOKS[one.verdict][1])
        shown.add_row(one.claim.id, printed_text(one.claim), ours_text(one), verdict)
    shown.caption = ", ".join(f"{number} {verdict.value}" for verdict, number in counts(judged).items())
    shown.caption_justify = "left"
    return shown


def _line(one: Judged) -> _Line:
    claim, notes = one.claim, [text for text in (one.claim.note, one.reason) if text]
    if isinstance(claim, Size) and claim.own_figure is not None:
        notes.append(f"Against its own figure ({percent(claim.own_figure)}) ours is {ours_text(one)}.")
    tolerance = getattr(claim, "tolerance", None)
    printed = printed_text(claim) + (f" ± {100 * tolerance:.0f}" if tolerance is not None else "")
    return _Line(
        id=claim.id,
        where=claim.where,
        says=claim.says,
        notes=notes,
        printed=DASH if isinstance(claim, NotEvaluated) else printed,
        ours=ours_text(one),
        verdict=one.verdict.value,
        look=LOOKS[one.verdict][0],
    )


def _section(finding: Finding, folder: Path) -> _Section:
    files = (folder / f"{finding.name}.svg", folder / f"{finding.name}.png")
    drawing = embedded(finding.drawing, files, "")
    return _Section(finding.name, finding.title, finding.readings, drawing, _table(finding))


def _table(finding: Finding) -> Table:
    """The first rows of what is drawn, names to the left."""
    frame = finding.table
    is_name = [not pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    num_heads = max(is_name.index(False) if False in is_name else len(is_name), 1)
    num_left = len(frame) - MAX_ROWS
    note = f"{num_left} more rows in {finding.name}.csv." if num_left > 0 else ""
    columns = tuple(str(column) for column in frame.columns)
    table = Table(finding.title, columns[:num_heads], columns[num_heads:], note=note, is_dense=True)
    for values in frame.head(MAX_ROWS).itertuples(index=False):
        texts = [_text(value) for value in values]
        table.rows.append(Row(tuple(texts[:num_heads]), tuple(map(Cell, texts[num_heads:]))))
    return table


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return DASH if pd.isna(value) else three_digits(float(value))
