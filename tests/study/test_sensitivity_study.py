"""The scan of assumptions: what an assumption does not touch is not simulated again."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tetribench.study.sensitivity import SensitivityStudy

Command = Callable[..., int]

SMALL = (
    *("+experiment=sensitivity", "task.seeds=[0,1]", "~axes.workload", "~axes.assumption"),
    "+axes.workload={LPLD:{workload.num_requests:20}}",
    "+axes.assumption={as it is:{},cap 2:{system.vllm_like_cap16.scheduler.max_num_seqs:2},"
    "small chunks:{prefill.chunk.chunk_size:64},slow:{hardware.overhead_s:x20}}",
)


def test_cells_that_an_assumption_does_not_touch_are_as_they_are(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tetribench(*SMALL, f"task.out={tmp_path / 'some'}") == 0
    monkeypatch.setattr("tetribench.study.sensitivity.OWNERS", {})
    assert tetribench(*SMALL, f"task.out={tmp_path / 'all'}") == 0
    some, every = (pd.read_csv(tmp_path / name / "sensitivity_rows.csv") for name in ("some", "all"))
    pd.testing.assert_frame_equal(some, every)
    assert len(every) == 2 * 4 * 2 and every["jct_s"].nunique() == 2 * (2 + 2 + 2)


def test_only_those_that_it_touches_are_simulated(
    tetribench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    simulated: list[str] = []
    simulate = SensitivityStudy.simulate

    def spy(self, composed, cells, console):  # type: ignore[no-untyped-def]
        simulated.extend(str(cell) for cell in cells if cell.seed == 0)
        return simulate(self, composed, cells, console)

    monkeypatch.setattr(SensitivityStudy, "simulate", spy)
    assert tetribench(*SMALL) == 0
    left_out = ("system ts_nvlink, assumption cap 2", "system vllm_like_cap16, assumption small chunks")
    assert len(simulated) == 2 * 4 - 2
    assert not [cell for cell in simulated if any(pair in cell for pair in left_out)]
