"""What a decision cost: what happened against what would have happened with another choice, all else being the same."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Regret(NamedTuple):
    """In the unit of what is compared, of which less is better: above 0 something else would have been better.

    `best`: what happened - the least that any instance would have given; never below 0. It is what knowing the future
    is worth, so that even the best policy has some.
    `chance`: what happened - the mean over all instances, the one chosen among them. Below 0 the policy did better than
    drawing one; a policy that draws has 0 in the mean.
    `other`: what happened - the least that another candidate would have given; NaN where there was none.
    """

    best: float
    chance: float
    other: float


def regret(chosen: str, candidates: Iterable[str], outcomes: Mapping[str, float]) -> Regret:
    """Of choosing `chosen` among `candidates`; `outcomes` has what comes of each instance, those included."""
    happened, others = outcomes[chosen], [outcomes[name] for name in candidates if name != chosen]
    return Regret(
        best=happened - min(outcomes.values()),
        chance=happened - sum(outcomes.values()) / len(outcomes),
        other=happened - min(others, default=float("nan")),
    )
