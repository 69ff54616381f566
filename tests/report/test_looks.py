"""Looking at a run while it goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tetribench.report import servings
from tetribench.report.facts import Facts
from tetribench.report.looks import Looks
from tetribench.report.runs import load_run


def test_a_look_sees_what_the_report_will_say(make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repeats, and then a third: each is read once."""
    path, read = make_run(num_repeats=3), list[int]()
    facts = json.loads((path / "run.json").read_text())
    real = servings.measure_repeat

    def counted(path: Path, facts: Facts, number: int, *, is_complete: bool) -> object:
        read.append(number)
        return real(path, facts, number, is_complete=is_complete)

    monkeypatch.setattr(servings, "measure_repeat", counted)
    looks = Looks(path)
    widths = []
    for num_repeats in (1, 2, 3):
        (path / "run.json").write_text(json.dumps(facts | {"repeats": facts["repeats"][:num_repeats]}))
        widths.append(looks.width())
    assert read == [0, 1, 2] and widths[0] is None
    ratio = next(row for row in load_run(path).compared if row.headline.name == "mean_jct_s").ratios["tetri"]
    assert widths[2] == pytest.approx(ratio.high - ratio.low)
