"""Regret from the command line: a row for each decision looked at, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tetribench.core.seeds import generator
from tetribench.study.branches import Key
from tetribench.study.regret import spread

Command = Callable[..., int]

SMALL = ("+experiment=regret", "workload.num_requests=24", "task.seeds=[0,1]", "task.num_decisions=3")


def keys(num: int) -> list[Key]:
    return [(id, 0) for id in range(num)]


def test_one_decision_of_each_stretch() -> None:
    for seed in range(50):
        found = [id for id, _ in spread(keys(10), 3, generator(seed))]
        assert [id in stretch for id, stretch in zip(found, (range(3), range(3, 6), range(6, 10)), strict=True)] == [
            True
        ] * 3
    assert len({tuple(spread(keys(10), 3, generator(seed))) for seed in range(50)}) > 20


def test_all_decisions_where_they_are_few() -> None:
    assert spread(keys(4), 9, generator(0)) == keys(4)
    assert spread([], 9, generator(0)) == []


def test_a_row_for_each_decision_with_its_regrets(tetribench: Command, tmp_path: Path) -> None:
    assert tetribench(*SMALL) == 0
    rows = pd.read_csv(tmp_path / "regret_rows.csv")
    runs = rows.groupby(["dispatcher", "period_ms", "seed"]).size()
    assert (runs == 3).all() and len(runs) == (1 + 1 + 3) * 2  # those that look at no load run with one period
    for scope in ("own", "all"):
        best, chance, other = (rows[f"{scope}_{against}_s"] for against in ("best", "chance", "other"))
        assert (best >= 0).all() and (best >= chance - 1e-6).all() and (best >= other.fillna(0) - 1e-6).all()
    assert np.isnan(rows["own_other_s"]).equals(rows["num_candidates"] == 1)
    assert (rows["jct_s"] > 0).all() and rows.groupby(["dispatcher", "period_ms", "seed"])[
        "mean_jct_s"
    ].nunique().max() == 1


def test_later_decisions_may_follow_the_policy(tetribench: Command, tmp_path: Path) -> None:
    labels = ("period_ms.500", "period_ms.2000", "dispatcher.random", "dispatcher.imbalance")
    small = (*SMALL, *(f"~axes.{label}" for label in labels), "task.num_decisions=8")
    found = {}
    for later in ("kept", "policy"):
        assert tetribench(*small, f"task.later={later}", f"task.out={tmp_path / later}") == 0
        found[later] = pd.read_csv(tmp_path / later / "regret_rows.csv")
    same = ["request", "to", "jct_s"]
    assert found["kept"][same].equals(found["policy"][same])
    assert not found["kept"]["all_best_s"].equals(found["policy"]["all_best_s"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("task.num_decisions=0",), "task.num_decisions=0: must be at least 1"),
        (("task.seeds=[0]",), "task.seeds=[0]: an interval needs at least 2 different seeds"),
        (("task.later=never",), "task.later"),
        (
            ("system.tetri.num_decode=1",),
            "dispatcher random, period_ms 100, seed 0: system.tetri.num_decode=1: there is nothing to decide",
        ),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...], message: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench(*SMALL, *options) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
