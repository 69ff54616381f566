"""The paper's printed claims as data (`conf/claims.yaml`), each with the cells of an experiment that it is about."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tetribench.paper.pairs import PERF_PER_DOLLAR

Labels = dict[str, str]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Printed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """`id` is unique, `where` its place in the paper, `says` the claim in words, `note` what was assumed."""

    id: str
    where: str
    says: str
    note: str = ""


class _About(_Printed, frozen=True, kw_only=True):
    """`metric` in the cell `of` of `experiment`, which is a column of its rows, or perf/$.

    `workload` is the label of the same cells in the sensitivity scan, where they are in it.
    """

    experiment: str
    metric: str
    of: Labels
    workload: str | None = None


class _Compared(_About, frozen=True, kw_only=True):
    """`against` has the labels that differ from `of` in the cell that it is compared with."""

    against: Labels


class Size(_Compared, frozen=True, kw_only=True, tag="size"):
    """A metric changes by `change`, -0.44 for 44 % less; `own_figure` is what the paper's own figure shows instead."""

    change: float
    tolerance: Positive
    own_figure: float | None = None


class Way(_Compared, frozen=True, kw_only=True, tag="direction"):
    """A metric is lower, or higher; the paper prints no size."""

    direction: Literal["lower", "higher"]


class Comparable(_Compared, frozen=True, kw_only=True, tag="comparable"):
    """A metric is the same, which is taken as a change of at most `tolerance`."""

    tolerance: Positive


class Share(_About, frozen=True, kw_only=True, tag="share"):
    """A metric is a share of `share`."""

    share: float
    tolerance: Positive


class NotEvaluated(_Printed, frozen=True, kw_only=True, tag="not_evaluated"):
    """What this project cannot say anything about, and why."""

    reason: str


Evaluated = Size | Way | Comparable | Share
Claim = Evaluated | NotEvaluated


def load_claims(path: Path) -> list[Claim]:
    """Raises ValueError, in one line that names the claim, for what is missing, unknown or illegal."""
    try:
        found = msgspec.yaml.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: cannot be read: {reason}") from error
    if not isinstance(found, list) or not found:
        raise ValueError(f"{path}: must be a list of claims")
    claims = [_claim(one, number) for number, one in enumerate(found, 1)]
    ids = [claim.id for claim in claims]
    for claim_id in ids:
        if ids.count(claim_id) > 1:
            raise ValueError(f"claim {claim_id}: there are two of this id")
    return claims


def _claim(found: Any, number: int) -> Claim:
    name = found["id"] if isinstance(found, dict) and "id" in found else f"number {number}"
    try:
        claim: Claim = msgspec.convert(found, Claim)
    except msgspec.ValidationError as error:
        raise ValueError(f"claim {name}: {error}") from error
    return claim


Axes = Mapping[str, Mapping[str, Any]]


def check_claims(
    claims: Sequence[Claim],
    experiments: Sequence[str],
    axes: Mapping[str, Axes],
    metrics: Mapping[str, frozenset[str]],
) -> None:
    """Every claim is about one of `experiments`, and about cells and a metric of it.

    `axes` and `metrics` are those of the experiments that are run, by name. Raises ValueError naming the claim.
    """
    for claim in claims:
        if isinstance(claim, NotEvaluated):
            continue
        if claim.experiment not in experiments:
            raise ValueError(f"claim {claim.id}: experiment={claim.experiment}: there are {', '.join(experiments)}")
        if claim.experiment not in axes:
            continue
        known = axes[claim.experiment]
        against = {} if isinstance(claim, Share) else claim.against
        for axis, label in (*claim.of.items(), *against.items()):
            labels = [str(each) for each in known.get(axis, {})]
            if label not in labels:
                legal = f"{axis} has {', '.join(labels)}" if labels else f"the axes are {', '.join(known)}"
                raise ValueError(f"claim {claim.id}: {axis}={label}: no such label of {claim.experiment}; {legal}")
        if missing := known.keys() - claim.of.keys():
            raise ValueError(f"claim {claim.id}: of: must have a label for {', '.join(sorted(missing))}")
        legal_metrics = metrics.get(claim.experiment)
        if legal_metrics is not None and claim.metric not in legal_metrics | PERF_PER_DOLLAR.keys():
            legal = ", ".join(sorted(legal_metrics))
            raise ValueError(f"claim {claim.id}: metric={claim.metric}: must be one of {legal}")
