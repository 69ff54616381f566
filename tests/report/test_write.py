"""The files of a report, and what making them costs in imports."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tetribench.report.frames import class_frame, comparison_frame, resource_frame
from tetribench.report.runs import load_run
from tetribench.report.write import write_report


def test_all_files_are_written(reported: Path) -> None:
    for name in ("metrics.json", "requests.parquet", "report.html", "figures/timeline.svg", "figures/timeline.png"):
        assert (reported / name).stat().st_size > 0


def test_requests_hold_a_row_for_each_system_and_request(reported: Path) -> None:
    requests = pd.read_parquet(reported / "requests.parquet")
    assert requests.groupby("system").size().to_dict() == {"tetri": 40, "vllm_like": 40}
    for row in requests.to_dict("records"):
        assert len(row["token_times_s"]) == row["num_output_tokens"]
        assert row["token_times_s"][0] == row["first_token_s"]
        assert row["jct_s"] == pytest.approx(row["finished_s"] - row["arrived_s"])


def test_writing_again_gives_the_same_bytes(run_dir: Path) -> None:
    write_report(run_dir)
    first = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    write_report(run_dir)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == first


def test_nothing_is_written_for_a_refused_run(run_dir: Path) -> None:
    (run_dir / "status.json").write_text('{"state": "failed", "reason": null}')
    with pytest.raises(ValueError, match="the run is failed"):
        write_report(run_dir)
    assert not (run_dir / "metrics.json").exists()


def test_frames_hold_the_numbers_of_metrics_json(reported: Path) -> None:
    run, document = load_run(reported), json.loads((reported / "metrics.json").read_text())
    classes = class_frame(run.pooled).set_index(["metric", "class", "system"])
    known = document["pooled"]["tetri"]
    assert classes.loc[("jct_s", "overall", "tetri"), "mean"] == known["metrics"]["overall"]["jct_s"]["mean"]
    resources = resource_frame(run.pooled).set_index("metric")
    assert resources.loc["makespan_s", "tetri"] == known["resources"]["makespan_s"]["mean"]
    comparison = comparison_frame(run).set_index("metric")
    row = next(row for row in document["comparison"] if row["metric"] == "mean_ttft_s")
    assert comparison.loc["mean_ttft_s", "tetri/vllm_like"] == row["ratios"]["tetri"]


def test_reporting_imports_nothing_heavy_and_nothing_that_runs() -> None:
    program = "import sys, tetribench.report.write; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "tetribench.report.html" in loaded
    packages = {"torch", "transformers", "hydra", "omegaconf", "wandb"}
    parts = {f"tetribench.{part}" for part in ("systems", "instance", "engine", "experiment", "config")}
    assert not loaded & (packages | parts)
