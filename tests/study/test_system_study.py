"""An experiment from the command line: cells, table, figure, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Command = Callable[..., int]

SMALL = ("+experiment=fig15", "workload.num_requests=8", "task.seeds=[0,1]")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_experiment_writes_its_table_and_figure(tetribench: Command, tmp_path: Path) -> None:
    out = tmp_path / "paper"
    assert tetribench(*SMALL, f"task.out={out}") == 0
    assert set(files(out)) == {"fig15.csv", "fig15.png", "fig15.svg", "fig15_rows.csv"}
    rows = pd.read_csv(out / "fig15_rows.csv")
    assert list(rows["system"].unique()) == ["vllm_like_cap16", "ts_roce", "ts_nvlink"]
    assert len(rows) == 3 * 2


def test_an_experiment_twice_gives_equal_files_on_one_core_or_more(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, cores in {"one": {0}, "two": {0, 1}}.items():
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: cores)
        assert tetribench(*SMALL, f"task.out={tmp_path / name}") == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.seeds=[0]", r"task.seeds=[0]: an interval needs at least 2 different seeds"),
        ("runtime=inline", "runtime=inline: the cells of an experiment run in virtual time; must be sim"),
        ("axes.system.ts_roce.systems=[]", "system ts_roce, seed 0: systems=[]: name at least one of"),
        ("+axes.system.ts_roce.nonsense=1", "nonsense"),
    ],
)
def test_bad_input_is_one_line(
    option: str, message: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench(*SMALL, f"task.out={tmp_path}", option) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_experiment_that_does_not_exist(tetribench: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert tetribench("+experiment=fig99") == 2
    assert "experiment=fig99: no such option; there are" in capfd.readouterr().err
