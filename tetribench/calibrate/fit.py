"""Constants of the cost model from measured steps: least squares of the relative error, deterministic."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from scipy.optimize import least_squares

from tetribench.calibrate.steps import Point
from tetribench.engine.base import Batch
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware

START_FACTORS = (1.0, 0.4, 2.5)
"""The saturation point makes a kink, so that a fit may stop beside the best: it sets out from several places."""


PRIOR_WEIGHT = 0.02
"""Of a constant's distance from where it was, against a point's error, both in logarithms."""


@dataclass(frozen=True, slots=True)
class Free:
    """A constant that is fitted, between `low` and `high`, looked for from `start` on.

    With `stays` it keeps near `start` as far as the points do not know better.
    """

    start: float
    low: float
    high: float
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Residual:
    """A point and what the model says of it; `error` is a fraction of what was measured."""

    point: Point
    predicted_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.point.measured_s - 1.0

    @property
    def shown_ms(self) -> tuple[float, float]:
        """Measured and predicted, as tables and figures have them."""
        return 1e3 * self.point.measured_s / self.point.num_timed, 1e3 * self.predicted_s / self.point.num_timed


def fit(points: Sequence[Point], known: dict[str, Any], free: dict[str, Free]) -> dict[str, Any]:
    """All constants of a profile: those `known`, and those `free` that make the fitted points come out best.

    What is minimised is the sum of squared logarithms of predicted over measured, each point counting once.
    """
    fitted = [point for point in points if point.is_fitted]
    if len(fitted) < len(free):
        raise ValueError(f"{len(fitted)} measured steps cannot settle {len(free)} constants")
    batches = [_batches(point) for point in fitted]
    names = list(free)

    def errors(scaled: Sequence[float]) -> list[float]:
        constants = {name: value * free[name].start for name, value in zip(names, scaled, strict=True)}
        predicted_s = _seconds(fitted, batches, {**known, **constants})
        off = [log(seconds / point.measured_s) for seconds, point in zip(predicted_s, fitted, strict=True)]
        moved = [
            PRIOR_WEIGHT * log(max(value, 1e-6)) for name, value in zip(names, scaled, strict=True) if free[name].stays
        ]
        return off + moved

    low = [one.low / one.start for one in free.values()]
    high = [one.high / one.start for one in free.values()]
    found = []
    for factor in START_FACTORS:
        start = [min(max(factor, least), most) for least, most in zip(low, high, strict=True)]
        found.append(least_squares(errors, start, bounds=(low, high), xtol=1e-10, ftol=1e-10, max_nfev=400))
    best = min(found, key=lambda one: float(one.cost))
    return {**known, **{name: _rounded(value, free[name]) for name, value in zip(names, best.x, strict=True)}}


def _rounded(scaled: float, free: Free) -> float:
    """Four digits; a cost that the fit has driven to nothing is nothing."""
    return 0.0 if free.low == 0.0 and scaled < 1e-3 else float(f"{scaled * free.start:.4g}")


def residuals(points: Sequence[Point], constants: dict[str, Any]) -> list[Residual]:
    """Every point beside its prediction, those that were not fitted too."""
    predicted_s = _seconds(points, [_batches(point) for point in points], constants)
    return [Residual(point, seconds) for point, seconds in zip(points, predicted_s, strict=True)]


Timed = list[tuple[Batch, int]]
"""What a point timed together, and how often each."""


def _batches(point: Point) -> Timed:
    return [(point.step.batch(), 1), *((step.batch(), num) for step, num in point.others)]


def _seconds(points: Sequence[Point], timed: Sequence[Timed], constants: dict[str, Any]) -> list[float]:
    """One cost model for each shape and number of devices among the points."""
    costs: dict[tuple[int, int], CostModel] = {}
    beside_slowdown = constants.get("beside_slowdown") or 1.0
    predicted_s = []
    for point, batches in zip(points, timed, strict=True):
        key = id(point.model), point.num_devices
        if key not in costs:
            costs[key] = CostModel(point.model, Hardware(**{**constants, "num_devices": point.num_devices}))
        by_itself_s = sum(num * costs[key].seconds(batch) for batch, num in batches)
        woken_s = point.num_woken * constants.get("wake_s", 0.0)
        predicted_s.append(by_itself_s + woken_s + point.beside_s * (1.0 - 1.0 / beside_slowdown))
    return predicted_s
