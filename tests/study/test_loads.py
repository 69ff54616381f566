"""Loads: the yardstick of the cost model, the rates and bounds that follow, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from tetribench.config import build, conf_folder, register
from tetribench.core.request import Request
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.study.loads import LoadStudy
from tetribench.study.reference import MAX_NUM_SEQS, reference

Command = Callable[..., int]


@pytest.fixture(scope="module")
def engine() -> CostModelFactory:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        built = build(compose("config", ["+experiment=rates"]).engine)
    assert isinstance(built, CostModelFactory)
    return built


def requests(num_prompt: int, num_output: int) -> list[Request]:
    return [Request(id=0, arrival_s=0.0, num_prompt_tokens=num_prompt, max_output_tokens=num_output)]


def test_bounds_are_multiples_of_a_lone_request(engine: CostModelFactory) -> None:
    once, thrice = (reference(engine, requests(512, 64), slowdown, slowdown) for slowdown in (1.0, 3.0))
    assert once.slo.ttft_s and once.slo.tpot_s
    assert thrice.slo.ttft_s == pytest.approx(3 * once.slo.ttft_s)
    assert thrice.slo.tpot_s == pytest.approx(3 * once.slo.tpot_s)
    assert 0.1 < once.slo.ttft_s < 0.3  # paper figure 3: a heavy prefill alone takes 142 ms
    assert 0.02 < once.slo.tpot_s < 0.04  # paper figure 4: a light decode step alone takes 26.8 ms


@given(st.integers(1, 1000), st.integers(1, 500))
def test_more_tokens_leave_less_capacity(engine: CostModelFactory, num_prompt: int, num_output: int) -> None:
    small = reference(engine, requests(num_prompt, num_output), 6.0, 5.0)
    large = reference(engine, requests(num_prompt + 200, num_output), 6.0, 5.0)
    assert 0 < large.capacity_per_s < small.capacity_per_s
    assert small.stay_s > 0


def test_a_strict_bound_leaves_less_capacity_than_a_loose_one(engine: CostModelFactory) -> None:
    strict, loose = (reference(engine, requests(100, 200), 6.0, slowdown) for slowdown in (1.5, 5.0))
    assert strict.capacity_per_s < loose.capacity_per_s
    assert loose.capacity_per_s < MAX_NUM_SEQS / loose.stay_s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loads": []}, r"task.loads=\[\]: must be at least one number"),
        ({"loads": [0.0]}, "all above 0"),
        ({"ttft_slowdown": 1.0}, "task.ttft_slowdown=1.0: must be above 1"),
        ({"num_stays": -1.0}, "task.num_stays=-1.0: must not be negative"),
        ({"min_requests": 3}, "task.min_requests=3: must be at least 4"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    class Nothing:
        quantities: dict[str, Any] = {}  # noqa: RUF012

    with pytest.raises(ValueError, match=message):
        LoadStudy(**{"name": "x", "figure": Nothing(), "out": "x", "loads": [1.0], **options})


def test_rates_follow_the_loads_and_the_instances(tetribench: Command, tmp_path: Path) -> None:
    small = ["task.seeds=[0,1]", "task.loads=[0.5,1]", "task.num_stays=0", "task.min_requests=9"]
    assert tetribench("+experiment=rates", *small) == 0
    rows = pd.read_csv(tmp_path / "rates_rows.csv")
    per_device = rows["rate_per_s"] / rows["num_devices"]
    assert per_device[rows["load"] == 1].round(4).nunique() == 1  # the file has six digits
    assert per_device[rows["load"] == 1].mean() == pytest.approx(2 * per_device[rows["load"] == 0.5].mean())
    assert rows.groupby("system")["num_devices"].first().to_dict() == {
        "vllm_like_cap16": 2,
        "vllm_like": 4,
        "vllm_like_chunked": 4,
        "sarathi_like": 4,
        "tetri 1P+1D": 4,
    }
    assert (rows["num_requests"] == 9).all()
    assert rows[["slo_ttft_s", "slo_tpot_s"]].nunique().tolist() == [1, 1]


def test_loads_need_a_cost_model(tetribench: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert tetribench("+experiment=rates", "engine=hf", "model=opt_tiny") == 2
    assert "engine=hf" in capfd.readouterr().err
