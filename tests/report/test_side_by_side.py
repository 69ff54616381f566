"""Several runs on one page."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from tetribench.report.figure_ratios import ratio_dots
from tetribench.report.quantities import ratio_text
from tetribench.report.runs import Run, load_run
from tetribench.report.side_by_side import draw, ratio_frame
from tetribench.report.style import drawing
from tetribench.report.write import write_side_by_side

MakeRun = Callable[..., Path]


@pytest.fixture
def folders(make_run: MakeRun) -> list[Path]:
    return [make_run(name, workload=name, seed=seed) for seed, name in enumerate(("LPLD", "HPHD", "mixed"))]


def test_all_files_are_written_and_agree(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = write_side_by_side(folders, out)
    table = pd.read_csv(out / "side_by_side.csv")
    found = table[(table["workload"] == "HPHD") & (table["metric"] == "mean_jct_s")].set_index("system")
    means = {result.system: result.summary["metrics"]["overall"]["jct_s"]["mean"] for result in runs[1].results}
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
    frame = ratio_frame(runs)
    with drawing():
        figure = ratio_dots(frame, many.baseline, "")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == many.others
    for panel in figure.axes:
        assert len(panel.lines[0].get_xdata()) == 2 * len(many.others)  # type: ignore[arg-type]
    (drawn,) = draw(runs, frame, tmp_path)
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
