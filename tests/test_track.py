"""What Weights & Biases gets, offline: read back from what its client wrote."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report.conftest import build_run
from tetribench.report.figure_pareto import serving_points
from tetribench.report.frames import curve_frame, ratio_frame
from tetribench.report.runs import Run
from tetribench.report.write import write_report
from tetribench.track import PANELS, WandbTracking


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_report(build_run(tmp_path_factory.mktemp("tracked") / "run", num_repeats=2))


def tables_of(run: Run) -> dict[str, pd.DataFrame]:
    return {
        "ratios": ratio_frame(run),
        "ttft_curves": curve_frame(run.requests, "ttft_s"),
        "jct_curves": curve_frame(run.requests, "jct_s"),
        "servings": serving_points(run),
    }


def written(folder: Path) -> bytes:
    """What the client wrote; its service, which may still be writing, has ended by then."""
    import wandb

    wandb.teardown()
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    return log.read_bytes()


def test_panels_are_over_columns_that_there_are(run: Run) -> None:
    tables = tables_of(run)
    for panel in PANELS:
        assert {panel.x, panel.y, *([panel.by] if panel.by else [])} <= set(tables[panel.table].columns)


def test_a_curve_ends_at_the_share_that_finished(run: Run) -> None:
    for system, own in curve_frame(run.requests, "jct_s").groupby("system"):
        tables = run.requests[str(system)]
        assert len(tables) == 2, "every serving is in the curve"
        assert own["share"].iloc[-1] == 1.0 and own["share"].is_monotonic_increasing
        assert own["seconds"].iloc[-1] == max(table["jct_s"].max() for table in tables)
    lost = run.requests | {run.systems[0]: [run.requests[run.systems[0]][0].assign(jct_s=np.nan)]}
    assert set(curve_frame(lost, "jct_s")["system"]) == {run.systems[1]}


def test_panels_and_their_specification_are_written_offline(run: Run) -> None:
    pytest.importorskip("wandb")
    WandbTracking().publish(run.path, {"seed": 0}, tables_of(run))
    content = written(run.path)
    for panel in PANELS:
        assert f"panels/{panel.name}".encode() in content
        assert panel.title.encode() in content
    for preset in (b"wandb/bar/v0", b"wandb/line/v0", b"wandb/scatter/v0"):
        assert preset in content
    assert b"panels.json" in content


def test_a_panel_without_data_is_left_out(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    tables = tables_of(run)
    tables["ratios"] = tables["ratios"].iloc[:0]
    (tmp_path / "figures").mkdir()
    (tmp_path / "metrics.json").write_text(json.dumps({"systems": {}}))
    WandbTracking().publish(tmp_path, {}, tables)
    content = written(tmp_path)
    assert b"panels/ratios" not in content and b"panels/jct" in content
