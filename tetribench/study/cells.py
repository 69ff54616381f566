"""The cells of an experiment: every combination of its axes' labels, with every seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tetribench.experiment import Axes


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of one system: by axis the label, and the options that differ from the experiment's."""

    labels: dict[str, str]
    seed: int
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{axis} {label}" for axis, label in {**self.labels, "seed": self.seed}.items())


def cells_of(axes: Axes, seeds: Sequence[int]) -> list[Cell]:
    """All of them, the first axis outermost and the seeds innermost.

    Raises ValueError for an axis without labels, and for an option that two axes set.
    """
    for axis, labels in axes.items():
        if not labels:
            raise ValueError(f"axes.{axis}: has no labels; must have at least one, with the options that differ there")
    cells = []
    for combination in product(*(labels.items() for labels in axes.values())):
        chosen = list(zip(axes, combination, strict=True))
        options = _merged({axis: own for axis, (_, own) in chosen})
        names = {axis: str(label) for axis, (label, _) in chosen}
        cells += [Cell(names, seed, {**options, "seed": seed}) for seed in seeds]
    return cells


def check_seeds(seeds: list[int] | None) -> list[int]:
    """The seeds of an experiment, five where none are given. Raises ValueError where they make no interval."""
    seeds = list(range(5)) if seeds is None else seeds
    if len(set(seeds)) < 2:
        raise ValueError(f"task.seeds={seeds}: an interval needs at least 2 different seeds")
    return seeds


def _merged(by_axis: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for axis, own in by_axis.items():
        for option, value in own.items():
            if option in merged:
                raise ValueError(f"axes.{axis}: sets {option}, which another axis sets too; must be set by one")
            merged[option] = value
    return merged
