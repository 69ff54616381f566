"""Whole runs: what is in the run folder, and that virtual time is deterministic to the byte."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.run_folders import slot
from tetribench.config import conf_folder, options_of
from tetribench.decode.admit import ReserveDynamic
from tetribench.decode.running import RunningBatch
from tetribench.instance.loop import InstanceLoop
from tetribench.kv.transfer import Handover
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.prefill.order import SJF
from tetribench.prefill.predict import NoisyOracle
from tetribench.prefill.predict_mode import Parallel
from tetribench.prefill.scheduler import PrefillScheduler

Command = Callable[..., int]

SYSTEMS = ("tetri", "vllm_like")


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def events(folder: Path) -> bytes:
    return b"".join((slot(folder, system) / "events.jsonl").read_bytes() for system in SYSTEMS)


def test_a_run_folder_is_whole(tetribench: Command, tmp_path: Path) -> None:
    assert tetribench("+workload=mixed", "runtime=sim", "name=run", "workload.num_requests=30") == 0
    folder = tmp_path / "run"
    assert load(folder / "status.json")["state"] == "complete"
    for name in (
        "config.yaml",
        "environment.json",
        "repeats/0/requests.jsonl",
        "requests.parquet",
        "report.html",
        "run.json",
    ):
        assert (folder / name).stat().st_size > 0
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}
    metrics = load(folder / "metrics.json")
    for system in SYSTEMS:
        accounting = metrics["systems"][system]["accounting"]
        assert accounting["finished"] + accounting["failed"] == accounting["submitted"] == 30
    requests = pd.read_parquet(folder / "requests.parquet")
    assert len(requests) == 30 * len(SYSTEMS)


def test_virtual_time_is_deterministic_to_the_byte(tmp_path: Path) -> None:
    """Two processes with different hash seeds, so that no order of a set or a dict can hide."""
    for hash_seed in ("1", "2"):
        command = [
            sys.executable,
            "-m",
            "tetribench.cli",
            "+workload=mixed",
            "runtime=sim",
            "system.tetri.num_decode=3",
        ]
        options = [f"out={tmp_path}", f"name=run{hash_seed}", "workload.num_requests=40", "progress=false"]
        subprocess.run([*command, *options], check=True, capture_output=True, env={"PYTHONHASHSEED": hash_seed})
    assert events(tmp_path / "run1") == events(tmp_path / "run2")


def test_torch_is_never_imported_in_virtual_time(tmp_path: Path) -> None:
    program = (
        "import sys; from tetribench import cli; cli.main(); "
        "assert not {'torch', 'transformers', 'zmq'} & sys.modules.keys(), 'a heavy package was imported'"
    )
    options = ["+workload=lpld", "runtime=sim", "workload.num_requests=4", f"out={tmp_path}", "progress=false"]
    subprocess.run([sys.executable, "-c", program, *options], check=True, capture_output=True)


@pytest.mark.parametrize("runtime", ["sim", "inline"])
def test_both_clocks_run_the_same_policies(runtime: str, tetribench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a policy or the loop is bypassed under one of the clocks."""
    parts = [
        (SJF, "next_group"),
        (Chunker, "cut"),
        (NoisyOracle, "predict"),
        (Parallel, "next_group"),
        (PrefillScheduler, "predicted"),
        (PowerOfTwo, "choose"),
        (ReserveDynamic, "admits"),
        (RunningBatch, "take"),
        (Handover, "next_push"),
        (InstanceLoop, "run"),
    ]
    called: set[str] = set()

    def spy(cls: type[Any], name: str) -> None:
        real = getattr(cls, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            called.add(cls.__name__)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, call)

    for cls, name in parts:
        spy(cls, name)
    options = ["workload.num_requests=8", "workload.length_scale=0.05", "device=cpu"]
    assert tetribench("+workload=mixed", f"runtime={runtime}", *options) == 0
    assert called == {cls.__name__ for cls, _ in parts}


def test_a_trace_is_replayed(tetribench: Command, tmp_path: Path, data_folder: Path) -> None:
    trace = data_folder / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv.gz"
    options = ["workload.num_requests=200", f"workload.path={trace}", "name=run"]
    assert tetribench("+workload=trace", "runtime=sim", *options) == 0
    for system in SYSTEMS:
        accounting = load(tmp_path / "run" / "metrics.json")["systems"][system]["accounting"]
        assert accounting["finished"] + accounting["failed"] == accounting["submitted"] == 200


def test_a_system_can_be_compared_with_itself(tetribench: Command, tmp_path: Path) -> None:
    options = ["systems=[vllm_like,vllm_like]", "workload.num_requests=10", "name=run"]
    assert tetribench("+workload=lpld", "runtime=sim", *options) == 0
    means = {
        system: summary["metrics"]["overall"]["jct_s"]["mean"]
        for system, summary in load(tmp_path / "run" / "metrics.json")["systems"].items()
    }
    assert list(means) == ["vllm_like", "vllm_like#2"]
    assert len(set(means.values())) == 1


def test_a_sweep_writes_a_report_each_and_one_side_by_side(tetribench: Command, tmp_path: Path) -> None:
    assert tetribench("-m", "+workload=lpld,hphd", "runtime=sim", "workload.num_requests=6") == 0
    runs = sorted(path for path in tmp_path.iterdir() if (path / "report.html").exists())
    assert len(runs) == 2
    side = tmp_path / "side"
    assert tetribench("task=report", f"task.runs=[{runs[0]},{runs[1]}]", f"task.out={side}") == 0
    assert (side / "side_by_side.html").exists()


def test_a_job_that_fails_does_not_end_a_sweep(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = ("-m", "+workload=lpld,mixed", "runtime=sim", "workload.num_requests=0,4")
    assert tetribench(*jobs) == 2
    said = capfd.readouterr().err
    assert said.count("workload.num_requests=0: must be at least 1") == 2
    assert "2 of the jobs failed: +workload=lpld" in said
    assert len([path for path in tmp_path.iterdir() if (path / "report.html").exists()]) == 2


def test_requests_can_be_written_and_served_again(tetribench: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    assert tetribench("+workload=lpld", "task=generate", f"task.out={path}", "workload.num_requests=5") == 0
    assert tetribench("+workload=file", f"workload.path={path}", "runtime=sim", "name=run") == 0
    assert load(tmp_path / "run" / "run.json")["num_requests"] == 5


def test_a_price_makes_a_cost(tetribench: Command, tmp_path: Path) -> None:
    few = ["+workload=lpld", "workload.num_requests=5", "runtime=sim"]
    assert tetribench(*few, "name=run", "cost.price_per_device_hour=1.8") == 0
    assert load(tmp_path / "run" / "run.json")["cost"] == {"price_per_device_hour": 1.8}
    for system in SYSTEMS:
        resources = load(tmp_path / "run" / "metrics.json")["systems"][system]["resources"]
        assert resources["cost_usd"] == pytest.approx(resources["provisioned_device_seconds"] / 2000)
        assert resources["energy_j"] is None


def test_two_sla_classes_are_judged_by_their_own_bounds(tetribench: Command, tmp_path: Path) -> None:
    halves = ["workload.before.num_requests=6", "workload.after.num_requests=4", "workload.shift_s=1"]
    classes = ["workload.before.sla_class=interactive", "workload.after.sla_class=batch"]
    bounds = ["slo.tpot_s=1000", "+slo.classes.interactive.ttft_s=1e-9", "+slo.classes.batch.ttft_s=1000"]
    assert tetribench("+workload=shift", "runtime=sim", "name=run", *halves, *classes, *bounds) == 0
    folder = tmp_path / "run"
    own = {"interactive": {"ttft_s": 1e-9}, "batch": {"ttft_s": 1000.0}}
    assert load(folder / "run.json")["slo"] == {"ttft_s": None, "tpot_s": 1000.0, "classes": own}
    for system in SYSTEMS:
        summary = load(folder / "metrics.json")["systems"][system]
        assert summary["slo"] == {
            "batch": {"num_submitted": 4, "num_attained": 4, "attained_share": 1.0},
            "interactive": {"num_submitted": 6, "num_attained": 0, "attained_share": 0.0},
        }
        assert summary["resources"]["slo_attained_share"] == pytest.approx(0.4)
    requests = pd.read_parquet(folder / "requests.parquet")
    assert requests["sla_class"].value_counts().to_dict() == {"interactive": 12, "batch": 8}
    assert "SLO attainment by SLA class" in (folder / "report.html").read_text()
    again = [f"workload.path={folder / 'repeats' / '0' / 'requests.jsonl'}", "name=again", *bounds]
    assert tetribench("+workload=file", "runtime=sim", *again) == 0
    assert (
        load(tmp_path / "again" / "run.json")["repeats"][0]["fingerprint"]
        == load(folder / "run.json")["repeats"][0]["fingerprint"]
    )


def test_a_class_changes_no_decision(tetribench: Command, tmp_path: Path) -> None:
    """The table of requests has it; nothing decides by it."""
    options = ["+workload=mixed", "runtime=sim", "workload.num_requests=12"]
    assert tetribench(*options, "name=plain") == tetribench(*options, "name=batch", "workload.sla_class=batch") == 0
    assert events(tmp_path / "batch") == events(tmp_path / "plain").replace(
        b'"sla_class":"default"', b'"sla_class":"batch"'
    )


def test_wandb_offline_gets_metrics_tables_and_figures(tetribench: Command, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    assert tetribench("+workload=lpld", "runtime=sim", "workload.num_requests=4", "track=wandb", "name=run") == 0
    files = [path.name for path in (tmp_path / "run" / "wandb").rglob("*")]
    assert any(name.endswith(".wandb") for name in files)
    assert any(name.endswith(".png") for name in files)
    assert any(name.endswith(".table.json") for name in files)


def _task(name: str) -> str:
    """What an experiment is: it says so itself, or it is another one with a few changes."""
    text = (conf_folder() / "experiment" / f"{name}.yaml").read_text()
    if found := re.search(r"override /task: (\w+)$", text, re.MULTILINE):
        return found[1]
    above = re.search(r"^  - (\w+)$", text, re.MULTILINE)
    return "run" if above is None or above[1] == "_self_" else _task(above[1])


TASKS = {name: _task(name) for name in options_of("experiment")}
EXPERIMENTS = [name for name, task in TASKS.items() if task == "run"]
STUDIES = [name for name, task in TASKS.items() if task not in ("run", "paper", "fidelity")]
"""The report of all and the comparison with real time have tests of their own."""


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs(name: str, tetribench: Command, tmp_path: Path) -> None:
    assert tetribench(f"+experiment={name}", "runtime=sim", "workload.num_requests=20", "name=run") == 0
    run = load(tmp_path / "run" / "run.json")
    accounting = [one["accounting"] for one in load(tmp_path / "run" / "metrics.json")["systems"].values()]
    assert len(accounting) == len(run["systems"]) and all(one["finished"] == 20 for one in accounting)
    assert (tmp_path / "run" / "report.html").exists()


SMALL = "workload.num_requests=8"
SMALL_STUDIES: dict[str, list[str]] = {
    "fig01": ["task.num_lengths=100"],
    **{f"fig0{figure}": [] for figure in (2, 3, 4, 5)},
    "fig16": [SMALL, "~axes.window", "+axes.window={w16:{},w128:{alternatives.sjf.window:128}}"],
    "fig19": [SMALL, "~axes.instances", "+axes.instances={two:{system.tetri.num_decode:2}}"],
    "sensitivity": [
        *("~axes.workload", "+axes.workload={LPLD:{workload.num_requests:4}}"),
        *("~axes.assumption", "+axes.assumption={as it is:{},slow:{hardware.overhead_s:x20}}"),
    ],
    "interference": ["task.loads=[0.3]", "task.length_scale=0.05", "workload.num_victims=1"],
    "equal_hardware": [f"alternatives.{name}.num_requests=4" for name in ("lpld", "lphd", "hpld", "hphd", "mixed")],
    "attribution": ["~axes.workload.Mixed", "alternatives.lphd.num_requests=4"],
    "attribution_2p2d": ["~axes.workload.LPHD", "alternatives.mixed.num_requests=4"],
    "regret": [SMALL, "task.num_decisions=1"],
    "rates": ["task.loads=[0.5,1]", "task.num_stays=0", "task.min_requests=8"],
    "map": ["~axes.prompt.512", "~axes.output.64", "task.loads=[0.5]", "task.num_stays=0", "task.min_requests=8"],
}
"""What makes an experiment small, where it is not the number of requests."""

SEEDLESS = ("lengths", "steps")
"""Tasks of experiments that have nothing to draw with several seeds."""


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs(name: str, tetribench: Command, tmp_path: Path) -> None:
    seeds = [] if TASKS[name] in SEEDLESS else ["task.seeds=[0,1]"]
    assert tetribench(f"+experiment={name}", *seeds, *SMALL_STUDIES.get(name, [SMALL])) == 0
    for suffix in (".csv", "_rows.csv", ".svg", ".png"):
        assert (tmp_path / f"{name}{suffix}").stat().st_size > 0
