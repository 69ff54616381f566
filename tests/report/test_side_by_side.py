"""Several runs on one page."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from tests.report.conftest import serve_again
from tetribench.metrics.intervals import mean_interval
from tetribench.report.digest import digest, read_digest
from tetribench.report.figure_pareto import serving_points
from tetribench.report.figure_ratios import INSIDE, ratio_bars, ratio_dots
from tetribench.report.quantities import ratio_text
from tetribench.report.runs import Run, load_run
from tetribench.report.side_by_side import draw, ratio_frame
from tetribench.report.style import GRID, drawing, system_looks
from tetribench.report.write import write_report, write_side_by_side

MakeRun = Callable[..., Path]


@pytest.fixture
def folders(make_run: MakeRun) -> list[Path]:
    return [make_run(name, workload=name, seed=seed) for seed, name in enumerate(("LPLD", "HPHD", "mixed"))]


def test_all_files_are_written_and_agree(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_side_by_side(folders, out)
    table = pd.read_csv(out / "side_by_side.csv")
    found = table[(table["workload"] == "HPHD") & (table["metric"] == "mean_jct_s")].set_index("system")
    means = {
        result.system: result.summary["metrics"]["overall"]["jct_s"]["mean"] for result in load_run(folders[1]).results
    }
    assert found["value"].to_dict() == pytest.approx(means)
    assert found.loc["tetri", "ratio"] == pytest.approx(means["tetri"] / means["vllm_like"])
    page = (out / "side_by_side.html").read_text()
    for text in ("LPLD", "HPHD", "mixed", "tetribench +workload=HPHD seed=1", "no interval"):
        assert text in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 2 and all(source.startswith("data:image/") for source in sources)
    names = {f"{stem}.{suffix}" for stem in ("side_by_side", "pareto") for suffix in ("svg", "png")}
    assert {path.name for path in (out / "figures").iterdir()} == names


def test_figures_are_reproducible(folders: list[Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_side_by_side(folders, tmp_path / name)
    for name in ("side_by_side.html", "figures/side_by_side.svg", "figures/side_by_side.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_runs_of_one_workload_go_by_their_names(make_run: MakeRun, tmp_path: Path) -> None:
    write_side_by_side([make_run("a", seed=1), make_run("b", seed=2)], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/side_by_side.csv")
    assert set(table["workload"]) == {"mixed_1", "mixed_2"}


def test_runs_of_one_workload_have_a_mean_and_a_range(make_run: MakeRun, tmp_path: Path) -> None:
    write_side_by_side([make_run("a", seed=1), make_run("b", seed=2)], tmp_path / "out")
    page = (tmp_path / "out/side_by_side.html").read_text()
    frame = pd.read_csv(tmp_path / "out/side_by_side.csv")
    ratios = frame.loc[(frame["metric"] == "mean_jct_s") & (frame["system"] == "tetri"), "ratio"]
    assert len(set(ratios)) == 2 and "Mean ratio over 2 runs" in page
    assert f"{ratio_text(ratios.min())} to {ratio_text(ratios.max())}" in page
    assert f'<data value="{ratios.mean()}"' in page


def test_runs_of_several_workloads_have_no_mean(folders: list[Path], tmp_path: Path) -> None:
    write_side_by_side(folders, tmp_path / "out")
    assert "Over the runs" not in (tmp_path / "out/side_by_side.html").read_text()


def test_many_systems_are_dots_and_not_bars(many: Run, tmp_path: Path) -> None:
    runs = [many, replace(many, facts=msgspec.structs.replace(many.facts, name="again"))]
    frame = ratio_frame(list(map(digest, runs)))
    with drawing():
        figure = ratio_dots(frame, many.baseline, "")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == many.others
    for panel in figure.axes:
        filled, hollow, *_ = panel.lines
        assert len(filled.get_xdata()) == 2 * len(many.others) and not len(hollow.get_xdata())  # type: ignore[arg-type]
    (drawn,) = draw(list(map(digest, runs)), frame, tmp_path)
    assert "a dot for each run" in drawn.caption


def test_different_baselines_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run("a"), make_run("b", baseline="tetri")]
    with pytest.raises(ValueError, match="need one baseline, these have tetri and vllm_like"):
        write_side_by_side(paths, tmp_path / "out")


def test_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="these have none"):
        write_side_by_side([], tmp_path / "out")


def test_a_run_of_one_system_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(systems=["vllm_like"])
    assert load_run(path).others == []
    with pytest.raises(ValueError, match="only vllm_like was measured"):
        write_side_by_side([path], tmp_path / "out")


@pytest.fixture
def repeated(make_run: MakeRun) -> list[Path]:
    """Two runs of three repeats; in the second a system differs from itself more than from the other."""
    paths = [make_run(name, workload=name, num_requests=20, num_repeats=3) for name in ("LPLD", "HPHD")]
    for path, slower in zip(paths, (1.001, 9.0), strict=True):
        serve_again(path, slower)
    return paths


def test_values_and_ratios_have_the_intervals_of_their_run(repeated: list[Path], tmp_path: Path) -> None:
    runs = [load_run(path) for path in repeated]
    frame = ratio_frame(list(map(digest, runs)))
    jct = frame[(frame["metric"] == "mean_jct_s") & (frame["system"] == "tetri")].set_index("workload")
    for run in runs:
        for row in run.document["comparison"]:
            if row["metric"] != "mean_jct_s":
                continue
            found = jct.loc[run.facts.workload]
            test = row["tests"]["tetri"]
            assert (found["low"], found["high"], found["outcome"]) == (test["low"], test["high"], test["outcome"])
            tables = run.requests["tetri"]
            means = [table["jct_s"].mean() for table in tables]
            by_repeat = [(means[2 * number] + means[2 * number + 1]) / 2 for number in range(3)]
            assert (found["value_low"], found["value_high"]) == pytest.approx(mean_interval(by_repeat)[1:])
            assert found["value"] == pytest.approx(sum(by_repeat) / 3)
    write_side_by_side(repeated, tmp_path / "out")
    text = (tmp_path / "out/side_by_side.html").read_text()
    known = jct.loc["LPLD"]
    assert f"[{known['low']:.2f}, {known['high']:.2f}]" in text and "over the repeats of a run" in text


def test_a_value_that_a_serving_has_not_got_has_no_interval(make_run: MakeRun) -> None:
    frame = ratio_frame([digest(load_run(make_run(num_requests=12, num_repeats=3)))])
    p95 = frame[frame["metric"] == "p95_jct_s"]
    assert p95[["value_low", "value_high"]].isna().all(axis=None)
    assert frame.loc[frame["metric"] == "mean_jct_s", "value_low"].notna().all()


def test_what_lies_inside_the_band_is_grey_in_the_figures(repeated: list[Path]) -> None:
    frame = ratio_frame([digest(load_run(path)) for path in repeated])
    inside = frame.loc[frame["system"] == "tetri"].set_index(["workload", "metric"])["is_inside_band"]
    assert inside["HPHD", "mean_jct_s"] and not inside["LPLD", "mean_jct_s"]
    with drawing():
        bars = ratio_bars(frame, system_looks(["vllm_like", "tetri"], "vllm_like"), "vllm_like", "")
        dots = ratio_dots(frame, "vllm_like", "")
    for panel, metric in zip(bars.axes, ("mean_ttft_s", "mean_jct_s", "resource_time_s"), strict=True):
        drawn = dict(zip(("LPLD", "HPHD"), panel.patches, strict=True))
        for workload, patch in drawn.items():
            assert (to_hex(patch.get_facecolor()) == GRID) == inside[workload, metric]
        assert len(panel.lines) == 3, "an interval for each bar, and the line at 1"
    assert INSIDE in [text.get_text() for text in bars.legends[0].get_texts()]
    filled, hollow, *_ = dots.axes[1].lines
    assert [len(line.get_xdata()) for line in (filled, hollow)] == [1, 1]  # type: ignore[arg-type]
    assert hollow.get_markerfacecolor() == "white"


def test_without_a_band_nothing_is_grey(folders: list[Path]) -> None:
    frame = ratio_frame([digest(load_run(path)) for path in folders])
    with drawing():
        figure = ratio_bars(frame, system_looks(["vllm_like", "tetri"], "vllm_like"), "vllm_like", "")
    assert INSIDE not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not any(to_hex(patch.get_facecolor()) == GRID for panel in figure.axes for patch in panel.patches)


def test_a_report_that_is_there_is_read_and_says_the_same(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(num_repeats=2)
    measured = read_digest(path)
    write_report(path)
    with monkeypatch.context() as patch:
        patch.setattr("tetribench.report.digest.load_run", None)
        read = read_digest(path)
    assert read == measured and read.others == ["tetri"] and read.num_repeats == 2
    pd.testing.assert_frame_equal(read.points, serving_points(load_run(path)))


@pytest.mark.parametrize("spoil", ["newer log", "older schema", "older values", "no validity"])
def test_a_report_that_is_not_of_this_run_and_program_is_not_read(make_run: MakeRun, spoil: str) -> None:
    path = make_run()
    write_report(path)
    known, file = read_digest(path), path / "metrics.json"
    document = json.loads(file.read_text())
    document["comparison"] = []
    if spoil == "older schema":
        document["schema_version"] -= 1
    if spoil == "older values":
        del document["servings"][0]["values"]["median_tpot_s"]
    file.write_text(json.dumps(document))
    if spoil == "no validity":
        (path / "validity.json").unlink()
    if spoil == "newer log":
        (log,) = path.glob("repeats/0/*tetri/events.jsonl")
        after_s = file.stat().st_mtime + 1
        os.utime(log, (after_s, after_s))
    assert read_digest(path) == known


def test_a_report_of_a_run_that_did_not_complete_is_refused(make_run: MakeRun) -> None:
    path = make_run()
    write_report(path)
    (path / "status.json").write_text('{"state": "interrupted", "reason": null}')
    with pytest.raises(ValueError, match="the run is interrupted"):
        read_digest(path)
