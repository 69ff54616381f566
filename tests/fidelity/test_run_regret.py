"""Regret of a real run: its record is followed, one dispatch is changed, and what lacks a record is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange
from tetribench.fidelity.regret import Follower, _is_kept, recorded_choices, regret_table
from tetribench.metrics.log import read_events
from tetribench.prefill.dispatch import RandomDispatch

Command = Callable[..., int]

REAL = (
    *("+workload=mixed", "runtime=inline", "engine=cost_model", "hardware=cpu_core", "systems=[tetri]"),
    *("workload.num_requests=8", "workload.length_scale=0.1", "system.tetri.num_decode=2"),
)


def ask(tetribench: Command, tmp_path: Path, name: str, *options: str) -> int:
    return tetribench(
        *("task=run_regret", f"task.run={tmp_path / name}", f"task.out={tmp_path / 'regret'}"),
        *("task.hardware=cpu_core", "task.num_decisions=3", *options),
    )


def test_a_real_run_has_regrets_that_are_called_the_cost_models(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench(*REAL, "name=real", "repeats=2") == 0
    capfd.readouterr()
    assert ask(tetribench, tmp_path, "real") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "the cost model's (hardware=cpu_core), not the machine's" in said
    rows = pd.read_csv(tmp_path / "regret/run_regret_rows.csv")
    assert rows.groupby("repeat").size().to_dict() == {0: 3, 1: 3}
    for repeat, own in rows.groupby("repeat"):
        (log,) = tmp_path.glob(f"real/repeats/{repeat}/*/events.jsonl")
        choices = recorded_choices(read_events(log))
        assert {int(row["request"]): row["to"] for row in own.to_dict("records")}.items() <= {
            id: to for (id, _), (to, _) in choices.items()
        }.items()
    assert (rows["own_best_s"] >= 0).all() and (rows["mean_jct_s"] > 0).all()
    assert ask(tetribench, tmp_path, "real", "task.hardware=v100_tp2") == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "task.hardware=v100_tp2: virtual time has " in said and said.endswith("must be the same")
    table = pd.read_csv(tmp_path / "regret/run_regret.csv")
    assert set(table["scope"]) == {"own", "all"} and table["low_s"].notna().any()


def test_what_has_no_record_is_refused_in_one_line(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    virtual = ("+workload=mixed", "runtime=sim", "workload.num_requests=6")
    assert tetribench(*virtual, "name=virtual") == 0
    assert ask(tetribench, tmp_path, "virtual") == 2
    assert "the run is in virtual time; must be in real time" in " ".join(capfd.readouterr().err.split())
    facts = tmp_path / "virtual/run.json"
    run = json.loads(facts.read_text()) | {"runtime": "process"}
    facts.write_text(json.dumps(run))
    assert ask(tetribench, tmp_path, "virtual") == 2
    assert "no system of it dispatches to several decode instances" in " ".join(capfd.readouterr().err.split())
    facts.write_text(json.dumps(run | {"overrides": []}))
    assert ask(tetribench, tmp_path, "virtual") == 2
    assert "does not say with which options" in " ".join(capfd.readouterr().err.split())
    (tmp_path / "virtual/status.json").write_text('{"state": "failed", "reason": null}')
    assert ask(tetribench, tmp_path, "virtual") == 2
    assert "the run is failed; must be complete" in " ".join(capfd.readouterr().err.split())
    assert ask(tetribench, tmp_path, "nothing") == 2
    assert "not a run folder" in " ".join(capfd.readouterr().err.split())
    assert ask(tetribench, tmp_path, "virtual", "task.num_decisions=0") == 2
    assert "task.num_decisions=0: must be at least 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("override", "is_kept"),
    [
        *(("+workload=mixed", True), ("seed=3", True), ("system.tetri.num_decode=2", True), ("model=opt_tiny", True)),
        *(("runtime=process", False), ("engine.attention=sdpa", False), ("+hardware=cpu_core", False)),
        *(("hardware.kv_memory_gib=2", True), ("engine@task.engine=hf", False), ("device=cpu", False)),
    ],
)
def test_options_that_virtual_time_has_not_got_are_left_out(override: str, is_kept: bool) -> None:
    assert _is_kept(override) == is_kept


def test_a_record_is_followed_while_its_instances_are_there() -> None:
    request = Request(id=0, arrival_s=0.0, num_prompt_tokens=10, max_output_tokens=10, label="")
    loads = {
        name: InstanceLoad(time_s=0.0, num_total_tokens=1000, num_free_tokens=1000) for name in ("decode-0", "decode-1")
    }
    recorded = {(0, 0): ("decode-1", ("decode-0", "decode-1")), (0, 1): ("decode-9", ("decode-9",))}
    follower = Follower(RandomDispatch(), recorded)
    first = follower.choose(request, LengthRange(0, 200), loads, generator(0))
    assert (first.to, first.candidates) == ("decode-1", ("decode-0", "decode-1"))
    assert follower.choose(request, LengthRange(0, 200), loads, generator(0)).to in loads, "where it went is gone"
    assert follower.choose(request, LengthRange(0, 200), loads, generator(0)).to in loads, "it is not on record"


def test_servings_of_a_repeat_count_as_one() -> None:
    columns = {f"{scope}_{against}_s": [1.0, 3.0, 6.0] for scope in ("own", "all") for against in ("best", "chance")}
    columns |= {f"{scope}_other_s": [float("nan")] * 3 for scope in ("own", "all")}
    rows = pd.DataFrame({"system": "tetri", "repeat": [0, 0, 1], "serving": ["a", "b", "a"], **columns})
    table = regret_table(rows).set_index(["scope", "against"])
    assert table["regret_s"].to_dict() == {(s, a): 4.0 for s in ("own", "all") for a in ("best", "chance")}
