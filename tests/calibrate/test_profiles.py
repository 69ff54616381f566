"""The constants under conf/hardware are those that the fit gives, and the residuals beside them are theirs."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.engine.test_cost_model import CONF, option, paper_model
from tetribench.calibrate.bench_runs import LLAMA_7B
from tetribench.calibrate.fit import Residual
from tetribench.calibrate.kernels import LLAMA_8B
from tetribench.calibrate.profiles import PROFILES
from tetribench.calibrate.tables import write_residuals
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import Architecture, Model


def errors(found: list[Residual], group: str) -> list[float]:
    return sorted(abs(one.error) for one in found if one.point.group == group)


@pytest.mark.parametrize("name", PROFILES)
def test_the_fit_gives_the_profile(name: str, data_folder: Path, tmp_path: Path) -> None:
    constants, found = PROFILES[name](data_folder)
    stored = option(f"hardware/{name}")
    assert {key: stored[key] for key in constants} == {
        key: value if isinstance(value, str) else pytest.approx(value, rel=2e-3) for key, value in constants.items()
    }
    write_residuals(found, tmp_path / "residuals.csv")
    again = [line.rsplit(",", 3)[0] for line in (tmp_path / "residuals.csv").read_text().splitlines()]
    kept = [line.rsplit(",", 3)[0] for line in (CONF / f"hardware/residuals/{name}.csv").read_text().splitlines()]
    assert again == kept
    fitted = sorted(abs(one.error) for one in found if one.point.is_fitted)
    assert fitted[len(fitted) // 2] < 0.08 and fitted[-1] < 0.25


@pytest.mark.parametrize("name", ["a100_80g", "h100"])
def test_runs_on_more_devices_come_out_as_well(name: str, data_folder: Path) -> None:
    _, found = PROFILES[name](data_folder)
    for group in ("vLLM runs", "vLLM runs on 2", "vLLM runs on 4"):
        assert errors(found, group)[len(errors(found, group)) // 2] < 0.06


@pytest.mark.parametrize("name", ["a100_80g", "h100", "h200"])
def test_more_devices_are_faster_and_less_than_their_number(name: str) -> None:
    shape = paper_model().shape()
    times = [
        CostModel(shape, Hardware(**option(f"hardware/{name}") | {"num_devices": num})).decode_seconds(32, 32 * 500)
        for num in (1, 2, 4, 8)
    ]
    for before, after in pairwise(times):
        assert before / 2 < after < before


@pytest.mark.parametrize("name", ["a100_80g", "h100", "h200"])
def test_measurements_that_are_missing_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^task.data=.*: has no aiconfigurator/"):
        PROFILES[name](tmp_path)


def test_the_models_of_the_measurements_are_the_projects() -> None:
    assert Model(**option("model/llama_8b") | {"architecture": Architecture.llama}).shape() == LLAMA_8B
    assert LLAMA_7B.num_parameters == pytest.approx(6.74e9, rel=0.001)
