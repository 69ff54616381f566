"""Figures: the same run gives the same bytes, spans are merged and summed right, odd runs are drawn too."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pandas as pd
import pytest

from tests.report.conftest import serve_again
from tetribench.metrics.compare import SystemResult
from tetribench.metrics.paired import Served
from tetribench.report.figure_instances import _resource_parts, merge_spans, work_spans
from tetribench.report.figure_latency import latency_by_class, latency_cdfs
from tetribench.report.figure_ledger import ledger_bars
from tetribench.report.figure_many import class_rows, latency_grid
from tetribench.report.figures import FIRST, draw_run, run_subtitle
from tetribench.report.runs import Run, load_run
from tetribench.report.style import MANY_LOOK, SYSTEMS, drawing, system_looks

STEMS = {"latency_cdf", "pareto", "resource_time", "ledger", "timeline", "latency_by_class"}


@pytest.fixture(scope="module")
def run(reported: Path) -> Run:
    return load_run(reported)


def tables_of(results: list[SystemResult]) -> dict[str, list[pd.DataFrame]]:
    return {result.system: [result.requests] for result in results}


def merged(run: Run) -> dict[str, pd.DataFrame]:
    return {system: pd.concat(tables) for system, tables in run.requests.items()}


def with_results(run: Run, results: list[SystemResult]) -> Run:
    """The same run, had it measured this; the first system is the baseline."""
    names = [result.system for result in results]
    facts = msgspec.structs.replace(run.facts, systems=names)
    return replace(run, facts=facts, served=[Served(0, 0, result) for result in results], baseline=names[0])


def test_a_band_is_drawn_around_servings_that_differ(run: Run) -> None:
    one, other = run.results[0].requests, run.results[0].requests.assign(ttft_s=lambda table: 2 * table["ttft_s"])
    with drawing():
        figure = latency_cdfs({"vllm_like": [one, other]}, system_looks(["vllm_like"], "vllm_like"), "")
    ttft, jct = figure.axes
    assert [len(panel.collections) for panel in (ttft, jct)] == [1, 1]
    bands = [np.asarray(panel.collections[0].get_paths()[0].vertices) for panel in (ttft, jct)]
    assert [len(np.unique(band[:, 1].round(6))) > 2 for band in bands] == [True, True]


def test_equal_runs_give_equal_figures(run: Run, reported: Path, tmp_path: Path) -> None:
    draw_run(run, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"{stem}.{suffix}" for stem in STEMS for suffix in ("png", "svg"))
    for name in names:
        assert (tmp_path / name).read_bytes() == (reported / "figures" / name).read_bytes(), name


def test_figures_have_no_date_and_no_outside_resource(reported: Path) -> None:
    for path in (reported / "figures").glob("*.svg"):
        root = ElementTree.fromstring(path.read_text())
        links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert links and all(link.startswith("#") for link in links)
        assert "<dc:date>" not in path.read_text()


def test_titles_name_workload_requests_and_runtime(run: Run) -> None:
    looks = system_looks([result.system for result in run.results], run.baseline)
    with drawing():
        figure = latency_cdfs(tables_of(run.results), looks, "mixed · 40 requests · virtual time (cost model)")
    assert figure.texts[1].get_text() == "mixed · 40 requests · virtual time (cost model)"


def test_a_curve_ends_at_the_share_that_finished(run: Run) -> None:
    lost = [replace(result, requests=result.requests.copy()) for result in run.results]
    lost[0].requests.loc[lost[0].requests.index[:10], ["ttft_s", "jct_s"]] = np.nan
    with drawing():
        figure = latency_cdfs(tables_of(lost), system_looks(["vllm_like", "tetri"], "vllm_like"), "")
    ends = [line.get_ydata()[-1] for line in figure.axes[0].lines]  # type: ignore[index]
    assert ends == [0.75, 1.0]


def test_values_of_many_sizes_get_a_logarithmic_axis(run: Run) -> None:
    spread = [replace(result, requests=result.requests.copy()) for result in run.results]
    spread[0].requests["ttft_s"] = np.geomspace(0.002, 30.0, len(spread[0].requests))
    with drawing():
        figure = latency_cdfs(tables_of(spread), system_looks(["vllm_like", "tetri"], "vllm_like"), "")
    ttft, jct = figure.axes
    assert (ttft.get_xscale(), jct.get_xscale()) == ("log", "linear")
    assert ttft.get_xlabel() == "TTFT (s, logarithmic)"
    low, high = ttft.get_xlim()
    assert low < 0.002 and high > 30.0
    assert all(low <= tick <= high for tick in ttft.get_xticks())


def test_one_class_needs_no_figure_by_class(run: Run) -> None:
    same = {system: table.assign(label="LPLD") for system, table in merged(run).items()}
    with drawing():
        assert latency_by_class(same, system_looks(["vllm_like", "tetri"], "vllm_like"), "") is None


def test_a_run_in_which_nothing_finished_is_drawn(run: Run, tmp_path: Path) -> None:
    unfinished = []
    for result in run.results:
        requests = result.requests.assign(ttft_s=np.nan, jct_s=np.nan)
        unfinished.append(replace(result, requests=requests, iterations=result.iterations[:0]))
    draw_run(with_results(run, unfinished), tmp_path)
    assert len(list(tmp_path.iterdir())) == 12


def test_the_baseline_has_the_first_look_wherever_it_stands() -> None:
    looks = system_looks(["a", "b", "base"], "base")
    assert (looks["base"], looks["a"], looks["b"]) == SYSTEMS[:3]


def test_systems_beyond_the_looks_share_one_and_the_baseline_keeps_its_own() -> None:
    looks = system_looks([*"abcdef", "base"], "base")
    assert looks.pop("base") == SYSTEMS[0]
    assert set(looks.values()) == {MANY_LOOK} and len(looks) == 6


def test_parts_of_the_resource_time_sum_to_it(run: Run) -> None:
    for result in run.results:
        parts = _resource_parts(result)
        assert sum(parts.values()) == pytest.approx(result.summary["resources"]["resource_time_s"])
        assert parts["mixed"] == 0.0
        assert parts["prefill"] == pytest.approx(result.instances["busy_prefill_s"].sum())


def test_spans_start_at_the_first_arrival(run: Run) -> None:
    result = run.results[1]
    spans = work_spans(result)
    assert set(spans["kind"]) == {"prefill", "decode", "transfer"}
    assert set(spans.loc[spans["kind"] == "transfer", "instance"]) == {"prefill_0"}
    arrived_s = result.requests["arrived_s"].min()
    assert spans["started_s"].min() == pytest.approx(result.iterations["started_s"].min() - arrived_s)


def test_merging_joins_neighbours_of_one_kind() -> None:
    rows = [
        ("decode", 0.0, 1.0),
        ("decode", 1.05, 2.0),
        ("prefill", 2.0, 3.0),
        ("decode", 3.0, 4.0),
        ("decode", 5.0, 6.0),
    ]
    spans = pd.DataFrame(rows, columns=["kind", "started_s", "ended_s"])
    merged = merge_spans(spans.sample(frac=1.0, random_state=1), gap_s=0.1)
    assert [tuple(row) for row in merged.to_numpy()] == [
        ("decode", 0.0, 2.0),
        ("prefill", 2.0, 3.0),
        ("decode", 3.0, 4.0),
        ("decode", 5.0, 6.0),
    ]


def test_merging_keeps_the_end_of_a_span_that_holds_others() -> None:
    spans = pd.DataFrame({"kind": "transfer", "started_s": [0.0, 1.0, 8.0], "ended_s": [10.0, 2.0, 9.0]})
    assert merge_spans(spans, 0.0)[["started_s", "ended_s"]].to_numpy().tolist() == [[0.0, 10.0]]


def test_nothing_merges_to_nothing() -> None:
    empty = pd.DataFrame({"kind": [], "started_s": [], "ended_s": []})
    assert merge_spans(empty, 0.0).empty


def test_many_systems_are_drawn(make_run: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    systems = [replace(run.results[0], system=f"a_system_with_quite_a_long_name_{number}") for number in range(8)]
    drawn = draw_run(with_results(run, systems), tmp_path)
    assert len(drawn) == 6


def test_each_of_many_systems_has_a_panel_with_its_curve_in_front(many: Run) -> None:
    with drawing():
        figure = latency_grid(merged(many), many.baseline, "")
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == 2 * many.others
    for panel in panels:
        *grey, baseline, own = panel.lines
        assert (baseline.get_color(), own.get_color()) == (SYSTEMS[0].colour, MANY_LOOK.colour)
        assert len(grey) == len(many.results) - 2
        assert own.get_ydata()[-1] == 1.0  # type: ignore[index]


def test_each_of_many_systems_has_a_row_in_the_panel_of_a_class(many: Run) -> None:
    looks = system_looks([result.system for result in many.results], many.baseline)
    with drawing():
        figure = class_rows(merged(many), looks, "")
        same = {system: table.assign(label="LPLD") for system, table in merged(many).items()}
        assert class_rows(same, looks, "") is None
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [result.system for result in many.results]
    assert all(len(panel.patches) == len(many.results) for panel in figure.axes)
    rows = figure.axes[: len(figure.axes) // 2], figure.axes[len(figure.axes) // 2 :]
    assert all(len({panel.get_xlim() for panel in row}) == 1 for row in rows), "classes that do not compare"


def test_many_systems_of_which_nothing_finished_are_drawn(many: Run, tmp_path: Path) -> None:
    lost = [replace(result, requests=result.requests.assign(ttft_s=np.nan, jct_s=np.nan)) for result in many.results]
    assert len(draw_run(with_results(many, lost), tmp_path)) == 6


def test_iterations_that_mix_are_a_kind_of_their_own(run: Run) -> None:
    result = run.results[0]
    mixing = replace(result, iterations=result.iterations.assign(num_prefill_tokens=5, num_decode_tokens=3))
    assert set(work_spans(mixing)["kind"]) == {"mixed"}
    assert _resource_parts(mixing)["mixed"] == pytest.approx(
        result.instances["busy_prefill_s"].sum() + result.instances["busy_decode_s"].sum()
    )


def test_figures_are_of_all_servings_or_say_that_they_are_not(make_run: Callable[..., Path], tmp_path: Path) -> None:
    path = make_run(num_requests=20)
    serve_again(path)
    run = load_run(path)
    with drawing():
        bars, classes = (
            ledger_bars(run.pooled, ""),
            latency_by_class(merged(run), system_looks(run.systems, "tetri"), ""),
        )
    assert bars.axes[0].get_xlabel().endswith("all servings")
    assert classes is not None
    counted = [
        int(panel.get_title(loc="left").partition("(")[2][:-1]) for panel in classes.axes[: len(classes.axes) // 2]
    ]
    assert sum(counted) == 40
    captions = {drawn.title: drawn.caption for drawn in draw_run(run, tmp_path)}
    of_first = {title for title, caption in captions.items() if caption.endswith(FIRST)}
    assert of_first == {"What each instance did, and when", "What the resource usage time was spent on"}
    assert run_subtitle(run, "first serving").endswith(" · first serving")
