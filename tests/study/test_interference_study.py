"""The experiment on interference from the command line, in virtual time and on a wall clock."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Timing
from tetribench.study.demand import BATCH, demand
from tetribench.study.simulate import serve_all
from tetribench.workload.interference import RequestClass

Command = Callable[..., int]

SMALL = ("+experiment=interference", "task.seeds=[0,1]", "task.length_scale=0.05", "workload.num_victims=1")
TWO = ("~axes.system", "+axes.system={colocated:{systems:[vllm_like]},split:{systems:[tetri]}}")


def test_a_request_demands_its_part_of_full_iterations() -> None:
    asked: list[Step] = []

    def timer(steps: Sequence[Step]) -> list[Timing]:
        """A prompt takes 1 ms a token; a batch of decodes 1 ms, and 1 us for each token that it reads."""
        asked.extend(steps)
        seconds = [1e-3 * sum(size for _, size in step.chunks) or 1e-3 + 1e-6 * sum(step.contexts) for step in steps]
        return [Timing(one, one, one, 1, 0) for one in seconds]

    found = demand(timer, 0.5)
    assert [len(step.contexts) for step in asked] == [0] + [BATCH] * 4 and asked[0].chunks == ((0, 256),)
    contexts = {one: step.contexts[0] for one, step in zip(RequestClass, asked[1:], strict=True)}
    assert contexts[RequestClass.HPLD] == 256 + 15  # half of the response, which is 30 on average
    step_s = 1e-3 + 1e-6 * BATCH * (9 + 15)
    assert found.device_s[RequestClass.LPLD] == pytest.approx(9e-3 + 30 * step_s / BATCH)
    assert found.stay_s == pytest.approx(288.25 * (1e-3 + 1e-6 * BATCH * 400))


def test_equal_loads_are_equal_rates_for_every_system(tetribench: Command, tmp_path: Path) -> None:
    assert tetribench(*SMALL, *TWO, "task.loads=[0.1,0.4]") == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        f"interference{suffix}" for suffix in (".csv", "_rows.csv", ".png", ".svg")
    }
    rows = pd.read_csv(tmp_path / "interference_rows.csv")
    assert len(rows) == 2 * 2 * (1 + 4 * 2)
    beside = rows[rows["aggressor"] != "none"]
    assert (beside.groupby(["aggressor", "load"])["aggressor_rate_per_s"].nunique() == 1).all()
    of_hpld = {load: beside.query(f"aggressor == 'HPLD' and load == {load}") for load in (0.1, 0.4)}
    rates = {load: float(own["aggressor_rate_per_s"].mean()) for load, own in of_hpld.items()}
    assert rates[0.4] == pytest.approx(4 * rates[0.1], rel=1e-5)
    assert (rows["hardware"] == "opt_13b on 2 x v100_tp2, virtual time").all()
    table = pd.read_csv(tmp_path / "interference.csv")
    assert len(table) == (2 + 1) * 4 * 4 * 2 * 4


def test_twice_gives_equal_files(tetribench: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert tetribench(*SMALL, *TWO, "task.loads=[0.3]", f"task.out={tmp_path / name}") == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_in_real_time_cells_come_one_by_one_there_and_back(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[str] = []

    def spy(composed, cells, quantities, on_done):  # type: ignore[no-untyped-def]
        served.extend(str(cell) for cell in cells)
        return serve_all(composed, cells, quantities, on_done)

    monkeypatch.setattr("tetribench.study.interference.serve_all", spy)
    real = ("runtime=inline", "engine=cost_model", "hardware=cpu_core", "model=opt_tiny", "task.loads=[0.2]")
    assert tetribench(*SMALL, *TWO, *real, "task.victim_load=0.5") == 0
    first, second = ([one for one in served if f"seed {seed}" in one] for seed in (0, 1))
    assert served == first + second and len(first) == 2 * (1 + 4)
    assert second == [one.replace("seed 0", "seed 1") for one in reversed(first)]
    assert first[:2] == [f"system {name}, aggressor none, load 0, seed 0" for name in ("colocated", "split")]
    rows = pd.read_csv(tmp_path / "interference_rows.csv")
    assert (rows["hardware"] == "opt_tiny on 2 devices of this machine, real time").all()
    assert (rows.filter(like="_jct_s") > 0).all(axis=None)
    assert "p99 ITL beside aggressors at load 0.2, over alone" in capsys.readouterr().out


def test_lengths_fit_the_models_context(tetribench: Command, tmp_path: Path) -> None:
    small = ("task.length_scale=1", "model.max_context_tokens=115", "task.loads=[0.1]")
    assert tetribench(*SMALL, *small, *TWO) == 0
    rows = pd.read_csv(tmp_path / "interference_rows.csv")
    assert rows["HPHD_jct_s"].max() < 65 * 0.2  # a tenth of 513 to 640 tokens, none of which takes 0.2 s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.loads=[]"], "task.loads=[]: must be at least one number"),
        (["task.loads=[0]"], "task.loads=[0.0]: must be at least one number, all above 0"),
        (["task.victim_load=0"], "task.victim_load=0.0: must be positive"),
        (["task.length_scale=0"], "task.length_scale=0.0: must be positive"),
        (["task.seconds=-1"], "task.seconds=-1.0: must be positive"),
        (["task.seeds=[0]"], "task.seeds=[0]: an interval needs at least 2 different seeds"),
        (["task.figure.apart=tetri"], "task.figure.apart=tetri: must be one of axes.system: colocated, split"),
        (["+axes.model={tiny:{}}"], "axes=['system', 'model']: a matrix is of one system; must have the axis system"),
        (
            ["system.vllm_like.num_instances=1"],
            "axes: a load means the same for systems of as many devices; colocated has 1, split has 2; must be equal",
        ),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], message: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench(*SMALL, *TWO, *options) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
