"""The steady state in the report: the table, the timeline's cuts, and runs without one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.conftest import serve_again
from tetribench.report.figure_instances import timeline
from tetribench.report.runs import Run, load_run
from tetribench.report.serving_tables import STEADY, steady_table
from tetribench.report.style import drawing
from tetribench.report.wording import steady_states
from tetribench.report.write import write_report

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from tests.report.conftest import build_run

    return load_run(build_run(tmp_path_factory.mktemp("long") / "run", num_requests=150))


def steady_systems(run: Run) -> list[str]:
    return [result.system for result in run.results if result.summary["steady_state"]["why_not"] is None]


def test_the_table_has_both_numbers_of_every_value(run: Run) -> None:
    systems = steady_systems(run)
    assert "tetri" in systems
    table = steady_table(run.pooled)
    assert len(table.rows) == len(STEADY) * len(systems)
    (jct,) = [row for row in table.rows if row.heads[0].startswith("Mean JCT") and row.heads[1] == "tetri"]
    summary = next(result.summary for result in run.results if result.system == "tetri")
    whole, inside, change = jct.cells
    assert whole.value == summary["metrics"]["overall"]["jct_s"]["mean"]
    assert inside.value == summary["steady_state"]["mean_jct_s"]
    assert inside.value and whole.value and change.text == f"{inside.value / whole.value - 1:+.1%}"


def test_the_timeline_shows_the_cuts(run: Run) -> None:
    with drawing():
        (axes,) = timeline(run.results, "").axes
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("steady state") == len(steady_systems(run))
    assert texts.count("no steady state") == len(run.systems) - len(steady_systems(run))
    ends = [tuple(float(str(end)) for end in line.get_xdata()) for line in axes.lines]  # type: ignore[union-attr]
    for result in run.results:
        window, origin_s = result.summary["steady_state"], result.requests["arrived_s"].min()
        if window["why_not"] is None:
            assert (window["from_s"] - origin_s, window["to_s"] - origin_s) in ends


def test_a_run_that_is_too_short_says_so_and_has_no_numbers(make_run: MakeRun) -> None:
    path = make_run(num_requests=12)
    run = write_report(path)
    assert steady_systems(run) == [] and steady_table(run.pooled).rows == []
    page = (path / "report.html").read_text()
    for sentence in steady_states(run):
        assert "no steady state; " in sentence and sentence in page
    assert json.loads((path / "metrics.json").read_text())["systems"]["tetri"]["steady_state"]["from_s"] is None


def test_of_several_servings_those_with_a_steady_state_are_counted(make_run: MakeRun) -> None:
    path = make_run(num_requests=150)
    serve_again(path, 1.0)
    run = load_run(path)
    (sentence,) = [text for text in steady_states(run) if text.startswith("tetri")]
    assert "in 2 of 2 servings, in the first of them from " in sentence
    assert run.pooled["tetri"]["steady_state"]["num_servings"] == 2
    assert "of the 2 servings of a system with a steady state" in steady_table(run.pooled).note
