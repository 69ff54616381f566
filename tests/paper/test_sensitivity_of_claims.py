"""Which claims hold when one assumption is changed."""

import pandas as pd
import pytest

from tetribench.paper.claims import Claim, NotEvaluated, Size, Way
from tetribench.paper.sensitivity import Sensitivity
from tetribench.report.finding import finding_of

CELLS = {"where": "", "says": "", "experiment": "fig15", "workload": "Mixed", "metric": "jct_s"}
PAIR = {"of": {"system": "b"}, "against": {"system": "a"}}
CLAIMS: list[Claim] = [
    Size(id="half", **CELLS, **PAIR, change=-0.5, tolerance=0.1),  # type: ignore[arg-type]
    Size(id="tenth", **CELLS, **PAIR, change=-0.9, tolerance=0.05),  # type: ignore[arg-type]
    Way(id="less", **CELLS, **PAIR, direction="lower"),  # type: ignore[arg-type]
    Size(id="elsewhere", **{**CELLS, "workload": None}, **PAIR, change=-0.5, tolerance=0.1),  # type: ignore[arg-type]
    NotEvaluated(id="open", where="", says="", reason=""),
]


@pytest.fixture
def rows() -> pd.DataFrame:
    """b has 80 % of a as it is, half with short prompts; a's seconds differ by seed."""
    return pd.DataFrame(
        [
            {"workload": "Mixed", "system": system, "assumption": assumption, "seed": seed, "jct_s": value * (1 + seed)}
            for assumption, share in {"as it is": 0.8, "short prompts": 0.5}.items()
            for system, value in {"a": 10.0, "b": 10.0 * share}.items()
            for seed in (0, 1, 2)
        ]
    )


def test_every_claim_with_a_workload_is_judged_under_every_assumption(rows: pd.DataFrame) -> None:
    table = Sensitivity(CLAIMS).table(rows).set_index(["claim", "assumption"])
    assert table["verdict"].to_dict() == {
        ("half", "as it is"): "direction only",
        ("half", "short prompts"): "reproduced",
        ("tenth", "as it is"): "direction only",
        ("tenth", "short prompts"): "direction only",
        ("less", "as it is"): "reproduced",
        ("less", "short prompts"): "reproduced",
    }


def test_it_says_what_would_have_to_be_true(rows: pd.DataFrame) -> None:
    finding = finding_of(Sensitivity(CLAIMS), "sensitivity", rows)
    assert finding.readings == [
        "half (-50%, ours -20%) would hold with short prompts (-50%).",
        "tenth (-90%, ours -20%) holds with none of these changes.",
    ]
    assert len(finding.drawing.axes[0].texts) == 3 * 2
    assert len(finding.drawing.axes[0].patches) == 3
