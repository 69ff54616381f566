"""The tables in a terminal of 80 columns."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.report.conftest import serve_again
from tetribench.report import terminal
from tetribench.report.arms import difference_table
from tetribench.report.runs import Run, load_run
from tetribench.report.serving_tables import class_table


def shown(table: Table, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_comparison_fits_80_columns_with_each_metric_on_one_line(reported: Path) -> None:
    text = shown(terminal.comparison(load_run(reported)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "better" in line or "worse" in line]
    assert any(line.lstrip().startswith("Output throughput (tokens/s)") for line in rows)
    assert any(line.lstrip().startswith("Mean TTFT") and line.rstrip().endswith("better") for line in rows)
    assert "virtual time (cost model)" in text
    assert "One repeat, no interval" in text


def test_the_band_fits_80_columns_too(make_run: Callable[..., Path]) -> None:
    path = make_run(num_repeats=3)
    serve_again(path, 1.02)
    text = shown(terminal.comparison(load_run(path)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("tetri" in line and line.rstrip().endswith("band") for line in lines) and "smallest" not in text
    (row,) = [line for line in lines if line.lstrip().startswith("Output throughput (tokens/s)")]
    assert row.rstrip().endswith("%")


def test_what_lies_inside_the_band_is_dim(make_run: Callable[..., Path]) -> None:
    path = make_run(num_repeats=3)
    serve_again(path, 9.0)
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(terminal.comparison(load_run(path)))
    (row,) = [line for line in capture.get().splitlines() if "Mean JCT" in line]
    assert row.count("\x1b[2m") == 3, "value, ratio and band"


def test_other_tables_fit_too(reported: Path) -> None:
    run = load_run(reported)
    tables = class_table(run.pooled, "jct_s"), difference_table(run.manifests, run.baseline)
    for table in map(terminal.to_rich, tables):
        assert max(map(len, shown(table).splitlines())) <= 80
    assert "reserve_dynamic" in shown(terminal.to_rich(difference_table(run.manifests, run.baseline)))


def test_a_partial_run_is_stamped(make_run: Callable[..., Path]) -> None:
    path = make_run()
    (path / "status.json").write_text('{"state": "interrupted", "reason": null}')
    assert "INTERRUPTED" in shown(terminal.comparison(load_run(path, allow_partial=True)))


def test_many_systems_fit_too_and_each_name_is_whole(many: Run) -> None:
    lines = shown(terminal.comparison(many)).splitlines()
    assert max(map(len, lines)) <= 80
    for result in many.results:
        assert [line.split()[0] for line in lines if line.strip()].count(result.system) == 1
    assert "Below each value its ratio to vllm_like." in " ".join(" ".join(lines[-3:]).split())
    assert "better" not in "".join(lines)
