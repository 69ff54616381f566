"""Which engines the measuring tasks take; the others are refused before anything starts."""

from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tests.support.engine import CheckingFactory
from tetribench.calibrate.gpu_bench import GpuBench
from tetribench.calibrate.marks_task import Marks
from tetribench.calibrate.task import Calibrate
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.experiment import Composed

TASKS = {"calibrate": Calibrate, "gpu_bench": GpuBench, "marks": Marks}


@pytest.mark.parametrize("name", TASKS)
def test_several_ranks_are_refused(name: str, tmp_path: Path) -> None:
    engine = HFEngine(model=Model(name="tiny"), device=Device.cpu, tensor_parallel=2)
    expected = rf"^engine.tensor_parallel=2: task={name} measures an engine on one device; must be 1 with it$"
    with pytest.raises(ValueError, match=expected):
        execute(TASKS[name](engine=engine, out=str(tmp_path / "mine")))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", TASKS)
def test_a_cost_model_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^task={name} measures a real engine; it needs engine=hf$"):
        execute(TASKS[name](engine=CheckingFactory(), out=str(tmp_path / "mine")))


def execute(task: Any) -> None:
    task.execute(cast(Composed, None), Console(quiet=True))
