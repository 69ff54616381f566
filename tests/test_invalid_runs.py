"""Runs that do not count, from the command line: they say so, and exit with 1."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.run_folders import slot

Command = Callable[..., int]

QUICK = ["engine=cost_model", "workload.num_requests=4", "workload.length_scale=0.1"]
"""In real time, in a second or two."""


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


BURN = "import pathlib, sys; end = pathlib.Path(sys.argv[1])\nwhile not end.exists(): sum(range(100_000))"


@pytest.fixture
def busy_cores(tmp_path: Path) -> Iterator[None]:
    """Other programs on every core, twice over, so that even one which shares them with many is heard; until all has
    been served and figures are drawn."""
    command = [sys.executable, "-c", BURN, str(tmp_path / "run" / "figures")]
    burners = [subprocess.Popen(command) for _ in range(4)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


@pytest.mark.alone
def test_other_programs_on_the_clients_cores_make_a_run_invalid(
    tetribench: Command, tmp_path: Path, busy_cores: None, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["validity.calibration_s=1", "validity.late_share=null", "validity.client_share=1"]
    assert tetribench("+workload=lpld", "runtime=process", "name=run", *QUICK, *limits) == 1
    error = capsys.readouterr().err
    assert re.match(r"tetribench: INVALID \(.*machine_disturbed.*\): ", error) and error.count("\n") == 1
    folder = tmp_path / "run"
    assert load(folder / "status.json")["state"] == "complete"
    assert "machine_disturbed" in load(folder / "validity.json")["codes"]
    assert load(folder / "client.json")["num_requests"] > 0
    assert (folder / "client" / "events.jsonl").stat().st_size > 0
    for system in ("tetri", "vllm_like"):
        assert load(slot(folder, system) / "slot.json")["machine"]["other_cores"] > 0.2
    side = [f"task.runs=[{folder},{folder}]", f"task.out={tmp_path / 'side'}"]
    assert tetribench("task=report", *side) == 2
    assert "the run is INVALID" in capsys.readouterr().err


def test_a_percentile_that_the_verdict_needs_and_does_not_have(
    tetribench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["runtime=sim", "verdict.metric=p95_jct_s", "workload.num_requests=10", "name=run"]
    assert tetribench("+workload=lpld", *options) == 1
    assert "INVALID (too_few_samples): p95 JCT" in capsys.readouterr().err
    assert load(tmp_path / "run" / "validity.json")["unchecked"]["client_error"] == "virtual time: no client"


@pytest.mark.alone
def test_a_run_that_counts_says_so(tetribench: Command, tmp_path: Path) -> None:
    """In real time, on a machine whose other programs are not judged."""
    assert tetribench("+workload=lpld", "runtime=inline", "name=run", *QUICK) == 0
    document = load(tmp_path / "run" / "validity.json")
    assert document["is_valid"] and document["codes"] == []
    tokens = document["slots"][0]["audit"]["tokens"]
    assert tokens["prompt_asked"] == tokens["prompt_sent"] == tokens["prompt_computed"] > 0
    assert not (tmp_path / "run" / "client.json").exists()


def test_what_was_asked_of_the_arrivals_is_written_down(tetribench: Command, tmp_path: Path) -> None:
    arrivals = ["arrivals@workload.arrivals=poisson", "workload.request_rate=4", "workload.num_requests=20"]
    assert tetribench("+workload=lpld", "runtime=sim", "name=run", *arrivals) == 0
    facts = load(tmp_path / "run" / "run.json")
    assert facts["arrivals"] == {"rate_per_s": 4.0, "cv": 1.0} and facts["concurrency"] is None
    audit = load(tmp_path / "run" / "validity.json")["slots"][0]["audit"]["arrivals"]
    assert audit["schedule_distance"] == 0.0 and audit["process_p"] > 0.001
    closed = ["drive=closed", "drive.concurrency=3", "workload.num_requests=20"]
    assert tetribench("+workload=lpld", "runtime=sim", "name=closed", *closed) == 0
    audit = load(tmp_path / "closed" / "validity.json")["slots"][0]["audit"]["arrivals"]
    assert audit["asked_concurrency"] == 3 and audit["mean_concurrency"] == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("option", ["validity.other_share=2", "validity.calibration_s=0"])
def test_an_illegal_limit_is_refused(option: str, tetribench: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert tetribench("+workload=lpld", "runtime=sim", option) == 2
    assert option.split("=")[0] in capsys.readouterr().err
