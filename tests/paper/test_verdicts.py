"""The verdict at its boundaries, and how it is written."""

from math import nan

import pandas as pd
import pytest

from tetribench.metrics.intervals import Interval
from tetribench.paper.claims import Claim, Comparable, Evaluated, NotEvaluated, Share, Size, Way
from tetribench.paper.verdicts import (
    Verdict,
    claims_frame,
    counts,
    judge,
    ours_text,
    printed_text,
    printed_value,
    verdict_of,
)
from tetribench.report.quantities import DASH

CELLS = {"of": {"system": "b"}, "against": {"system": "a"}, "experiment": "e", "metric": "jct_s"}
SAYS = {"id": "x", "where": "Figure 1", "says": "b is faster than a"}
SIZE = Size(**SAYS, **CELLS, change=-0.5, tolerance=0.1)  # type: ignore[arg-type]
GROWTH = Size(**SAYS, **CELLS, change=0.5, tolerance=0.1)  # type: ignore[arg-type]
LOWER = Way(**SAYS, **CELLS, direction="lower")  # type: ignore[arg-type]
HIGHER = Way(**SAYS, **CELLS, direction="higher")  # type: ignore[arg-type]
SAME = Comparable(**SAYS, **CELLS, tolerance=0.1)  # type: ignore[arg-type]
SHARE = Share(**SAYS, experiment="e", metric="jct_s", of={"system": "b"}, share=0.8, tolerance=0.1)
OPEN = NotEvaluated(**SAYS, reason="no device")

REPRODUCED, DIRECTION, FAILED = Verdict.reproduced, Verdict.direction_only, Verdict.not_reproduced


@pytest.mark.parametrize(
    ("claim", "ours", "verdict"),
    [
        (SIZE, (-0.5, -0.6, -0.4), REPRODUCED),
        (SIZE, (-0.4, -0.5, -0.3), REPRODUCED),
        (SIZE, (-0.6, -0.7, -0.5), REPRODUCED),
        (SIZE, (-0.399, -0.5, -0.3), DIRECTION),
        (SIZE, (-0.601, -0.7, -0.5), DIRECTION),
        (SIZE, (-0.45, -1.0, 0.0), FAILED),
        (SIZE, (-0.1, -0.2, -1e-6), DIRECTION),
        (SIZE, (0.1, 0.05, 0.2), FAILED),
        (SIZE, (nan, nan, nan), FAILED),
        (GROWTH, (0.6, 0.5, 0.7), REPRODUCED),
        (GROWTH, (0.2, 0.1, 0.3), DIRECTION),
        (GROWTH, (0.2, 0.0, 0.3), FAILED),
        (LOWER, (-0.1, -0.2, -1e-6), REPRODUCED),
        (LOWER, (-0.1, -0.2, 0.0), FAILED),
        (HIGHER, (0.1, 1e-6, 0.2), REPRODUCED),
        (HIGHER, (0.1, 0.0, 0.2), FAILED),
        (SAME, (0.1, 0.05, 0.2), REPRODUCED),
        (SAME, (-0.1, -0.2, -0.05), REPRODUCED),
        (SAME, (0.101, 0.05, 0.2), FAILED),
        (SAME, (nan, nan, nan), FAILED),
        (SHARE, (0.9, 0.8, 1.0), REPRODUCED),
        (SHARE, (0.7, 0.6, 0.8), REPRODUCED),
        (SHARE, (0.699, 0.6, 0.8), FAILED),
    ],
)
def test_the_verdict(claim: Evaluated, ours: tuple[float, float, float], verdict: Verdict) -> None:
    assert verdict_of(claim, Interval(*ours)) is verdict


ROWS = pd.DataFrame(
    [("a", 0, 10.0), ("a", 1, 20.0), ("b", 1, 11.0), ("b", 0, 5.0)], columns=["system", "seed", "jct_s"]
)


def test_a_claim_is_judged_by_the_rows_of_its_experiment() -> None:
    judged = judge(SIZE, {"e": ROWS}, {})
    assert judged.ours.value == pytest.approx((0.5 * 0.55) ** 0.5 - 1)
    assert judged.verdict is REPRODUCED
    assert judge(SHARE, {"e": ROWS}, {}).ours.value == 8.0


@pytest.mark.parametrize(
    ("claim", "failures", "reason"),
    [(OPEN, {}, "no device"), (SIZE, {}, "e was not run"), (SIZE, {"e": "broken"}, "e failed")],
)
def test_a_claim_without_rows_is_not_evaluated(claim: Claim, failures: dict[str, str], reason: str) -> None:
    judged = judge(claim, {}, failures)
    assert (judged.verdict, judged.reason, ours_text(judged)) == (Verdict.not_evaluated, reason, DASH)


def test_what_is_printed() -> None:
    texts = {printed_text(claim): printed_value(claim) for claim in (SIZE, LOWER, SAME, SHARE, OPEN)}
    assert texts == {"-50%": -0.5, "lower": None, "comparable": 0.0, "80%": 0.8, DASH: None}
    rows = {"e": ROWS.assign(jct_s=[0.8, 0.8, 0.7, 0.9])}
    assert ours_text(judge(SHARE, rows, {})).startswith("80% [-47%, 207%]")
    assert ours_text(judge(SAME, {"e": ROWS.assign(jct_s=1.0)}, {})) == "+0% [+0%, +0%]"


def test_claims_are_counted_and_tabled() -> None:
    judged = [judge(claim, {"e": ROWS}, {}) for claim in (SIZE, LOWER, OPEN)]
    assert counts(judged) == {REPRODUCED: 2, DIRECTION: 0, FAILED: 0, Verdict.not_evaluated: 1}
    frame = claims_frame(judged)
    assert frame["verdict"].tolist() == ["reproduced", "reproduced", "not evaluated"]
    assert frame["kind"].tolist() == ["size", "direction", "not_evaluated"]
    assert frame["note"].tolist() == ["", "", "no device"]
