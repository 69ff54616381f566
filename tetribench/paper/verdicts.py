"""Whether what was measured bears out a claim of the paper."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import nan

import pandas as pd

from tetribench.metrics.intervals import Interval, mean_interval
from tetribench.paper.claims import Claim, Comparable, Evaluated, NotEvaluated, Share, Size
from tetribench.paper.pairs import cell, percent, ratio
from tetribench.report.quantities import DASH

ROUNDING = 1e-9
"""So that a difference of exactly the tolerance is inside of it."""


class Verdict(StrEnum):
    """In the order in which they are counted."""

    reproduced = "reproduced"
    direction_only = "direction only"
    not_reproduced = "not reproduced"
    not_evaluated = "not evaluated"


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim, our number with its 95 % interval (a change, or a share), what follows, and why nothing does."""

    claim: Claim
    ours: Interval
    verdict: Verdict
    reason: str = ""


def judge(claim: Claim, rows: Mapping[str, pd.DataFrame], failures: Mapping[str, str]) -> Judged:
    """By the rows of each experiment. One without rows has failed, as `failures` says, or was not run."""
    unknown = Interval(nan, nan, nan)
    if isinstance(claim, NotEvaluated):
        return Judged(claim, unknown, Verdict.not_evaluated, claim.reason)
    if claim.experiment not in rows:
        reason = f"{claim.experiment} failed" if claim.experiment in failures else f"{claim.experiment} was not run"
        return Judged(claim, unknown, Verdict.not_evaluated, reason)
    ours = measured(claim, rows[claim.experiment])
    return Judged(claim, ours, verdict_of(claim, ours))


def measured(claim: Evaluated, rows: pd.DataFrame) -> Interval:
    """The change from `against` to `of`, paired by seed; of a share its mean."""
    of = cell(rows, claim.of)
    if isinstance(claim, Share):
        return mean_interval(of[claim.metric].tolist())
    against = cell(rows, {**claim.of, **claim.against})
    return Interval(*(bound - 1 for bound in ratio(of, against, claim.metric)))


def verdict_of(claim: Evaluated, ours: Interval) -> Verdict:
    """A number is reproduced within its tolerance, a direction where the interval excludes no change.

    A size needs both, or a claim of less than its tolerance could be reproduced by nothing at all. A number that is
    undefined reproduces nothing.
    """
    match claim:
        case Size():
            if not _goes(ours, "lower" if claim.change < 0 else "higher"):
                return Verdict.not_reproduced
            return Verdict.reproduced if _is_near(ours, claim.change, claim.tolerance) else Verdict.direction_only
        case Share():
            holds = _is_near(ours, claim.share, claim.tolerance)
        case Comparable():
            holds = _is_near(ours, 0.0, claim.tolerance)
        case _:
            holds = _goes(ours, claim.direction)
    return Verdict.reproduced if holds else Verdict.not_reproduced


def _is_near(ours: Interval, printed: float, tolerance: float) -> bool:
    return abs(ours.value - printed) <= tolerance + ROUNDING


def _goes(ours: Interval, direction: str) -> bool:
    return ours.high < 0 if direction == "lower" else ours.low > 0


def printed_value(claim: Claim) -> float | None:
    """The number that the paper prints: a change or a share; comparable is no change, and a direction has none."""
    match claim:
        case Size():
            return claim.change
        case Share():
            return claim.share
        case Comparable():
            return 0.0
        case _:
            return None


def printed_text(claim: Claim) -> str:
    """As the paper has it."""
    match claim:
        case Size():
            return percent(claim.change)
        case Share():
            return f"{claim.share:.0%}"
        case Comparable():
            return "comparable"
        case NotEvaluated():
            return DASH
        case _:
            return claim.direction


def ours_text(judged: Judged) -> str:
    """Our number and its interval; of a share without a sign."""
    if judged.verdict is Verdict.not_evaluated:
        return DASH
    value, low, high = (percent(bound) for bound in judged.ours)
    if isinstance(judged.claim, Share):
        value, low, high = (f"{bound:.0%}" for bound in judged.ours)
    return f"{value} [{low}, {high}]"


def counts(judged: Sequence[Judged]) -> dict[Verdict, int]:
    """How many claims have each verdict."""
    found = Counter(one.verdict for one in judged)
    return {verdict: found[verdict] for verdict in Verdict}


def claims_frame(judged: Sequence[Judged]) -> pd.DataFrame:
    """A row for each claim."""
    return pd.DataFrame(
        [
            {
                "id": one.claim.id,
                "where": one.claim.where,
                "says": one.claim.says,
                "kind": type(one.claim).__struct_config__.tag,
                "printed": printed_value(one.claim),
                "own_figure": getattr(one.claim, "own_figure", None),
                "tolerance": getattr(one.claim, "tolerance", None),
                "ours": one.ours.value,
                "low": one.ours.low,
                "high": one.ours.high,
                "verdict": one.verdict.value,
                "note": one.reason or one.claim.note,
            }
            for one in judged
        ]
    )
