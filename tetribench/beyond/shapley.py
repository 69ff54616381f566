"""Shapley values under precedence: a total change split among its causes, exactly (Faigle and Kern, 1992).

Each cause gets the change that it brings when it is switched on, averaged over every order in which all of them can be
switched on one at a time. The orders are not listed: the sets that occur in them are, and how often each step does.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

Causes = frozenset[str]
Step = tuple[Causes, str]
"""A cause that is switched on, and what is on already."""


class Precedence:
    """Of `causes`, some come only `after` others: a cause and those that must be on before it.

    Raises ValueError for a name that is no cause, and where no order is possible.
    """

    def __init__(self, causes: Sequence[str], after: Mapping[str, Iterable[str]]) -> None:
        if len(set(causes)) < len(causes):
            raise ValueError(f"causes={list(causes)}: each may be named once")
        self.causes = tuple(causes)
        self._after = {cause: frozenset(after.get(cause, ())) for cause in causes}
        for name in {*after, *frozenset().union(*self._after.values())}:
            if name not in self._after:
                raise ValueError(f"{name}: must be one of the causes: {', '.join(causes)}")
        if not self._reachable():
            raise ValueError("no order of the causes is possible: two of them wait for each other")

    def admits(self, switched_on: Iterable[str]) -> bool:
        """Whether everything that is on has before it what it needs."""
        on = frozenset(switched_on)
        return all(self._after[cause] <= on for cause in on)

    @property
    def sets(self) -> list[Causes]:
        """All that are admitted, small ones first."""
        sizes = range(len(self.causes) + 1)
        return [
            frozenset(chosen) for size in sizes for chosen in combinations(self.causes, size) if self.admits(chosen)
        ]

    def weights(self) -> dict[Step, Fraction]:
        """The share of all orders that contain each step; those of one cause add up to 1."""
        sets = self.sets
        steps = [(on, cause) for on in sets for cause in self.causes if cause not in on and self.admits(on | {cause})]
        num_before = dict.fromkeys(sets, 0) | {frozenset[str](): 1}
        for on, cause in steps:  # by size, so that what a set is reached by is counted before it
            num_before[on | {cause}] += num_before[on]
        everything = frozenset(self.causes)
        num_after = dict.fromkeys(sets, 0) | {everything: 1}
        for on, cause in reversed(steps):
            num_after[on] += num_after[on | {cause}]
        num_orders = num_after[frozenset()]
        return {(on, cause): Fraction(num_before[on] * num_after[on | {cause}], num_orders) for on, cause in steps}

    def _reachable(self) -> bool:
        on: set[str] = set()
        while ready := [cause for cause in self.causes if cause not in on and self._after[cause] <= on]:
            on.update(ready)
        return len(on) == len(self.causes)


class Share(NamedTuple):
    """What a cause brings: on average over the orders, and in those in which it brings least and most."""

    mean: float
    least: float
    most: float


def shapley(precedence: Precedence, worth: Mapping[Causes, float]) -> dict[str, Share]:
    """How much of worth[all] - worth[nothing] each cause brings; `worth` has every set that is admitted."""
    found: dict[str, list[tuple[Fraction, float]]] = {cause: [] for cause in precedence.causes}
    for (on, cause), weight in precedence.weights().items():
        found[cause].append((weight, worth[on | {cause}] - worth[on]))
    return {
        cause: Share(
            float(sum(weight * Fraction(change) for weight, change in changes)),
            min(change for _, change in changes),
            max(change for _, change in changes),
        )
        for cause, changes in found.items()
    }
