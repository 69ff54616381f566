"""The content of the tables: every number is one of metrics.json, every verdict follows the metric's direction."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.conftest import add_copies, serve_again
from tetribench.report.quantities import DASH
from tetribench.report.runs import Run, load_run
from tetribench.report.serving_tables import (
    CLASS_METRICS,
    change_table,
    class_table,
    decision_table,
    failure_table,
    resource_table,
    sla_table,
    stage_table,
)
from tetribench.report.tables import BAND, SMALLEST, Table, comparison_table, verdict


@pytest.fixture(scope="module")
def run(reported: Path) -> Run:
    return load_run(reported)


@pytest.fixture(scope="module")
def document(run: Run) -> dict[str, Any]:
    return run.document


def texts(table: Table) -> dict[tuple[str, ...], list[str]]:
    return {row.heads: [cell.text for cell in row.cells] for row in table.rows}


def test_every_cell_leads_to_its_value(run: Run, document: dict[str, Any]) -> None:
    tables = [comparison_table(run), stage_table(run.pooled), resource_table(run.pooled), decision_table(run.pooled)]
    tables += [class_table(run.pooled, column) for column in CLASS_METRICS]
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    assert len(cells) > 300
    for cell in cells:
        if cell.path:
            known: Any = document
            assert reduce(getitem, cell.path, known) == cell.value
        assert (cell.value is None) == (cell.text in (DASH, ""))


@pytest.mark.parametrize(
    ("ratio", "better", "expected"),
    [
        (0.5, "lower", "better"),
        (2.0, "lower", "worse"),
        (0.5, "higher", "worse"),
        (2.0, "higher", "better"),
        (1.004, "lower", ""),
        (None, "lower", ""),
    ],
)
def test_verdict_follows_the_direction(ratio: float | None, better: str, expected: str) -> None:
    assert verdict(ratio, better) == expected


def test_comparison_has_a_ratio_column_for_one_other_system(run: Run) -> None:
    table = comparison_table(run)
    assert table.columns == ("vllm_like", "tetri", "tetri / vllm_like")
    rows = {row.heads[0]: row.cells for row in table.rows}
    value, other, ratio = rows["Mean JCT (s)"]
    assert value.value and other.value and ratio.value == pytest.approx(other.value / value.value)
    assert ratio.verdict == "better"
    assert rows["Resource usage time (s)"][-1].verdict == "worse"


def test_many_systems_are_the_rows_of_the_comparison(many: Run) -> None:
    document = many.document
    table = comparison_table(many, document)
    assert table.is_dense and table.heads == ("system",)
    assert [row.heads[0] for row in table.rows] == [result.system for result in many.results]
    assert len(table.columns) == len(document["comparison"])
    for row in table.rows:
        for cell, known in zip(row.cells, document["comparison"], strict=True):
            assert cell.value == known["values"][row.heads[0]]
            has_ratio = row.heads[0] in known["ratios"]
            assert (cell.below is not None) == has_ratio
            assert cell.below is None or (
                cell.below.value == known["ratios"][row.heads[0]] and not cell.below.is_spelled
            )


@pytest.fixture
def make_repeated(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """A run of three repeats, each of whose systems was served twice, the second time slower by a factor."""

    def make(slower: float, **facts: Any) -> Path:
        path = make_run(num_requests=20, num_repeats=3, **facts)
        serve_again(path, slower)
        return path

    return make


def test_comparison_says_how_sure_it_is(make_repeated: Callable[..., Path]) -> None:
    run = load_run(make_repeated(1.02))
    table, document = comparison_table(run), run.document
    assert table.columns[-2:] == (BAND, SMALLEST)
    for row, known in zip(table.rows, document["comparison"], strict=True):
        test = known["tests"].get("tetri", {"band": None, "smallest": None})
        assert [cell.value for cell in row.cells[-2:]] == [test["band"], test["smallest"]]
    jct = next(row for row in table.rows if row.heads[0].startswith("Mean JCT"))
    assert jct.cells[-2].text.startswith("±") and jct.cells[-2].text.endswith("%")
    assert comparison_table(run, spreads=(BAND,)).columns == table.columns[:-1]
    assert BAND in table.note and "Smallest effect" in table.note


def test_without_intervals_nothing_says_how_sure_it_is(run: Run) -> None:
    assert not {BAND, SMALLEST} & set(comparison_table(run).columns)
    assert "Smallest effect" not in comparison_table(run).note


@pytest.mark.parametrize(("slower", "is_grey"), [(1.001, False), (9.0, True)])
def test_what_lies_inside_the_band_is_grey(make_repeated: Callable[..., Path], slower: float, is_grey: bool) -> None:
    run = load_run(make_repeated(slower))
    rows = {row.heads[0].split(" (")[0]: row.cells for row in comparison_table(run).rows}
    baseline, value, ratio, *_ = rows["Mean JCT"]
    assert baseline.verdict == ""
    assert value.verdict == ("muted" if is_grey else "")
    assert ratio.verdict == "undecided", "this experiment is too small for more"


def test_one_repeat_served_twice_is_judged_by_its_band(make_run: Callable[..., Path]) -> None:
    path = make_run(num_requests=20)
    serve_again(path, 9.0)
    table = comparison_table(load_run(path))
    assert table.columns[-1] == BAND
    jct = next(row for row in table.rows if row.heads[0].startswith("Mean JCT"))
    assert [cell.verdict for cell in jct.cells] == ["", "muted", "undecided", "muted"]


def test_of_several_systems_the_smallest_effect_is_that_which_holds_for_all(make_run: Callable[..., Path]) -> None:
    run = load_run(make_run(num_requests=20, num_repeats=3))
    document = run.document
    for row in document["comparison"]:
        for system in list(row["tests"]):
            row["tests"]["other"] = row["tests"][system] | {"smallest": 0.5}
    jct = next(row for row in comparison_table(run, document).rows if row.heads[0].startswith("Mean JCT"))
    assert (jct.cells[-1].text, jct.cells[-1].path[-2:]) == ("50.0%", ("other", "smallest"))


def test_chosen_metrics_only(run: Run, many: Run) -> None:
    chosen = ["mean_jct_s", "mean_ttft_s"]
    assert [row.heads[0] for row in comparison_table(run, metrics=chosen).rows] == ["Mean TTFT (s)", "Mean JCT (s)"]
    assert comparison_table(many, metrics=chosen).columns == ("Mean TTFT (s)", "Mean JCT (s)")


def test_comparison_of_several_puts_ratios_below(make_run: Callable[..., Path]) -> None:
    path = make_run()
    add_copies(path, ["second"])
    table = comparison_table(load_run(path))
    assert table.columns == ("second", "tetri", "vllm_like")
    first, other, baseline = table.rows[0].cells
    assert baseline.below is None
    for cell in (first, other):
        assert cell.below is not None and cell.below.value and cell.value and baseline.value
        assert cell.below.value == pytest.approx(cell.value / baseline.value)


def test_too_few_requests_for_a_percentile_are_explained(make_run: Callable[..., Path]) -> None:
    table = comparison_table(load_run(make_run(num_requests=12)))
    assert texts(table)[("p95 TTFT (s)",)] == [DASH, DASH, DASH]
    assert "p95 needs 20" in table.note


def test_classes_start_with_all_requests(run: Run) -> None:
    rows = class_table(run.pooled, "ttft_s").rows
    assert [row.heads for row in rows[:2]] == [("overall", "vllm_like"), ("overall", "tetri")]
    assert sum(row.cells[0].value or 0 for row in rows if row.heads[1] == "tetri") == 2 * 40


def test_stages_that_nobody_has_are_left_out(run: Run) -> None:
    assert any("KV transfer" in row.heads[0] for row in stage_table(run.pooled).rows)
    only_colocated = {"vllm_like": run.pooled["vllm_like"]}
    assert not any("KV transfer" in row.heads[0] for row in stage_table(only_colocated).rows)


def test_failures_are_counted_by_reason(run: Run) -> None:
    assert not failure_table(run.requests).rows
    whole = run.requests["vllm_like"][0]
    failed = whole.copy()
    failed.loc[[0, 3], "failed_s"] = 1.0
    failed["reason"] = "too long"
    assert texts(failure_table({"vllm_like": [failed, whole, failed]})) == {("vllm_like", "too long"): ["4"]}


def test_several_sla_classes_have_a_table_with_the_numbers_of_metrics_json(
    make_classed_run: Callable[..., Path],
) -> None:
    slo = {"ttft_s": 2.0, "tpot_s": 0.1, "classes": {"batch": {"ttft_s": None, "tpot_s": None}}}
    run = load_run(make_classed_run(num_requests=12, slo=slo))
    table = sla_table(run.pooled)
    assert table.columns == ("requests", "attained", "attained (%)")
    rows = {row.heads: row.cells for row in table.rows}
    systems = [result.system for result in run.results]
    assert list(rows) == [(name, system) for name in ("batch", "interactive") for system in systems]
    assert [cell.text for cell in rows["batch", systems[0]]] == ["8", "8", "100"]
    document = run.document
    for cells in rows.values():
        num_requests, num_attained, share = (cell.value for cell in cells)
        assert num_requests and num_attained is not None and share == num_attained / num_requests
        for cell in cells:
            known: Any = document
            assert reduce(getitem, cell.path, known) == cell.value


def test_one_sla_class_has_no_table(run: Run) -> None:
    assert not sla_table(run.pooled).rows


def test_decisions_stand_where_there_was_a_choice(run: Run) -> None:
    table = decision_table(run.pooled)
    assert len(table.columns) == 1, "a colocated system dispatches nothing"
    assert texts(table)[("Candidates with equal interference (%)",)] == ["100"]
    assert texts(table)[("No instance with room, where the policy looks (%)",)] == ["0"]
    decided = run.pooled[table.columns[0]]
    alone = decided | {"decisions": decided["decisions"] | {"single_share": 1.0}}
    assert decision_table({"alone": alone}).rows == []


def test_tables_are_of_all_servings(make_repeated: Callable[..., Path]) -> None:
    """Ten percent slower the second time: what the first servings say is not what the tables show."""
    run = load_run(make_repeated(1.1))
    first = {result.system: result.summary for result in run.results}
    jct = {row.heads: row.cells for row in class_table(run.pooled, "jct_s").rows}["overall", "tetri"]
    known = first["tetri"]["metrics"]["overall"]["jct_s"]
    assert jct[0].value == 6 * known["count"] and jct[1].value != known["mean"]
    tables = run.requests["tetri"]
    samples = [value for table in tables for value in table["jct_s"]]
    assert len(tables) == 6 and jct[1].value == pytest.approx(sum(samples) / len(samples))
    assert jct[1].below is not None and jct[1].below.text.startswith("[")
    stage = next(row for row in stage_table(run.pooled).rows if row.heads == ("Decode (s)", "tetri"))
    assert stage.cells[1].below is not None and " to " in stage.cells[1].below.text
    makespan = next(row for row in resource_table(run.pooled).rows if row.heads[0].startswith("Makespan"))
    assert all(cell.below is not None and " to " in cell.below.text for cell in makespan.cells)
    for table in (class_table(run.pooled, "jct_s"), stage_table(run.pooled), resource_table(run.pooled)):
        assert "the 6 servings of a system" in table.note


def test_one_serving_says_nothing_of_servings(run: Run) -> None:
    for table in (class_table(run.pooled, "jct_s"), stage_table(run.pooled), resource_table(run.pooled)):
        assert "servings" not in table.note
        assert all(cell.below is None for row in table.rows for cell in row.cells)


def test_changes_of_every_serving_are_named(make_repeated: Callable[..., Path], run: Run) -> None:
    assert change_table(run.served).rows == []
    served = load_run(make_repeated(1.1)).served
    flip = {"time_s": 1.0, "instance": "decode_0", "what": "flip", "role": "decode", "to": "prefill"}
    flip |= {"drain_s": 0.2, "overhead_s": 0.01, "reason": "idle"}
    changed = [one._replace(result=replace(one.result, changes=pd.DataFrame([flip]))) for one in served[:2]]
    assert [row.heads[0] for row in change_table(changed).rows] == [one.result.system for one in changed]
    named = change_table([*changed, *served[2:]])
    assert [row.heads[0] for row in named.rows] == [
        f"{one.result.system} (repeat {one.repeat}, slot {one.slot})" for one in changed
    ]
