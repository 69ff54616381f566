"""Systems that served the same requests, compared over repeats: ratios with intervals, and what can be said of them.

Of each repeat and metric there is one logarithm of a ratio to the baseline; what a system was served twice in a repeat
is averaged first. The interval of their mean is Student's, with a standard error from a bootstrap over repeats first
and, within each, blocks of requests that arrived after one another second (the same blocks in both systems, as requests
of one run depend on each other). Percentiles of the bootstrap itself would be too narrow: with five repeats they hold
the truth in 84 % of the cases instead of 95 %, this interval in 96 % (tests/metrics/test_paired.py).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp, isfinite, log, nan, sqrt
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tetribench.metrics.blocks import block_deviations
from tetribench.metrics.compare import HEADLINES, OVERALL, Headline, SystemResult
from tetribench.metrics.intervals import CONFIDENCE
from tetribench.metrics.latency import Better
from tetribench.metrics.rule import Rule

NUM_RESAMPLES = 2000
POWER = 0.8
"""With which the smallest effect would have been found."""


class Served(NamedTuple):
    """One serving of a repeat's requests. Slots count the servings of the repeat from 0."""

    repeat: int
    slot: int
    result: SystemResult


MEDIAN_TPOT, PER_DEVICE = "median_tpot_s", "output_throughput_per_device_tokens_per_s"

POINT_VALUES = frozenset({MEDIAN_TPOT, PER_DEVICE})
"""What is known of a serving beside the headline metrics: what its user sees, and what a device delivers."""


class ServingValues(NamedTuple):
    """What one serving says of every headline metric and of `POINT_VALUES`, by name; NaN where it is undefined."""

    repeat: int
    slot: int
    system: str
    values: dict[str, float]


class Outcome(StrEnum):
    """What an experiment says of a metric. Without an interval it says nothing."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A system's value over the baseline's. NaN where there are too few repeats for it.

    `p` is the chance of a mean at least as far from 1 if both were alike, after Holm's correction for the other tests.
    `band` is how far from 1 (0.03: 3 %) the same system against itself would come in 95 % of such experiments;
    `smallest` the smallest change that this one would have found with a chance of 80 %.
    """

    value: float
    low: float = nan
    high: float = nan
    p: float = nan
    band: float = nan
    smallest: float = nan
    outcome: Outcome = Outcome.UNKNOWN

    @property
    def is_inside_band(self) -> bool:
        return abs(log(self.value)) <= log(1.0 + self.band) if self.value > 0 and isfinite(self.band) else False


@dataclass(frozen=True, slots=True)
class Compared:
    """One headline metric: by system its mean over all servings, and by system that is not the baseline the ratio."""

    headline: Headline
    values: dict[str, float]
    ratios: dict[str, Ratio]


def compare(served: Sequence[Served], baseline: str, rule: Rule, seed: int) -> list[Compared]:
    """A row for each headline, systems by name. Raises ValueError where the baseline is not among them.

    The verdict's metric is tested once for each system that is compared; all others are corrected together for being
    many.
    """
    systems = sorted({one.result.system for one in served})
    if baseline not in systems:
        raise ValueError(f"baseline={baseline}: must be one of the systems measured: {', '.join(systems)}")
    by_repeat = _by_repeat(served, systems)
    bands = {headline.name: _band(by_repeat, headline, baseline) for headline in HEADLINES}
    found: dict[tuple[str, str], _Mean] = {}
    for headline in HEADLINES:
        for system in systems:
            if system != baseline and headline.has_ratio:
                found[headline.name, system] = _mean(by_repeat, headline, system, baseline, seed)
    adjusted = _adjusted({key: one.p for key, one in found.items()}, rule.metric)
    rows = []
    for headline in HEADLINES:
        ratios = {
            system: _ratio(one, adjusted[name, system], bands[name], headline, rule)
            for (name, system), one in found.items()
            if name == headline.name
        }
        values = {system: _overall(by_repeat, headline, system, baseline) for system in systems}
        rows.append(Compared(headline, values, ratios))
    return rows


def serving_values(served: Sequence[Served], baseline: str) -> list[ServingValues]:
    """Of each serving that is compared, in their order: what ratios and their spread over repeats are made of."""
    found = []
    for own in _whole_repeats(served, {one.result.system for one in served}):
        repeat = _repeat(own)
        values = {
            headline.name: {name: _values(repeat, headline, name, baseline) for name in repeat}
            for headline in HEADLINES
        }
        numbers = dict.fromkeys(repeat, 0)
        for one in own:
            system = one.result.system
            mine = {name: by_system[system][numbers[system]] for name, by_system in values.items()}
            found.append(ServingValues(one.repeat, one.slot, system, mine | point_values(one.result)))
            numbers[system] += 1
    return found


def point_values(result: SystemResult) -> dict[str, float]:
    tpot_s = result.summary["metrics"][OVERALL]["tpot_s"]["median"]
    per_device = result.summary["resources"][PER_DEVICE]
    return {
        name: nan if value is None else value for name, value in {MEDIAN_TPOT: tpot_s, PER_DEVICE: per_device}.items()
    }


_Repeat = dict[str, list[SystemResult]]
"""The servings of one repeat, by system in the order of their slots."""


def _by_repeat(served: Sequence[Served], systems: Collection[str]) -> list[_Repeat]:
    return [_repeat(own) for own in _whole_repeats(served, systems)]


def _whole_repeats(served: Sequence[Served], systems: Collection[str]) -> list[list[Served]]:
    """By repeat, in the order of their slots.

    Repeats in which a system was not served are left out: there is nothing to compare it with.
    """
    found: dict[int, list[Served]] = {}
    for one in sorted(served, key=lambda one: (one.repeat, one.slot)):
        found.setdefault(one.repeat, []).append(one)
    whole = [own for own in found.values() if {one.result.system for one in own} >= set(systems)]
    return whole or list(found.values())


def _repeat(served: Iterable[Served]) -> _Repeat:
    found: _Repeat = {}
    for one in served:
        found.setdefault(one.result.system, []).append(one.result)
    return found


def _values(repeat: _Repeat, headline: Headline, system: str, baseline: str) -> list[float]:
    """Of each serving. What depends on the baseline too is taken with its serving of the same number."""
    found = []
    for number, result in enumerate(repeat[system]):
        others = repeat[baseline]
        value = headline.value(result.summary, others[min(number, len(others) - 1)].summary)
        found.append(nan if value is None else value)
    return found


def _overall(by_repeat: Sequence[_Repeat], headline: Headline, system: str, baseline: str) -> float:
    return fmean(fmean(_values(repeat, headline, system, baseline)) for repeat in by_repeat)


@dataclass(frozen=True, slots=True)
class _Mean:
    """Of the logarithms of the ratios of all repeats."""

    log: float
    error: float
    num: int

    @property
    def p(self) -> float:
        """Two-sided, by Student's distribution."""
        if self.num < 2 or not isfinite(self.log):
            return nan
        if self.error == 0.0:
            return 1.0 if self.log == 0.0 else 0.0
        from scipy.stats import t  # half a second to import

        return float(2.0 * t.sf(abs(self.log) / self.error, self.num - 1))


def _mean(by_repeat: Sequence[_Repeat], headline: Headline, system: str, baseline: str, seed: int) -> _Mean:
    logs, pools = [], []
    for number, repeat in enumerate(by_repeat):
        own, other = (fmean(_values(repeat, headline, name, baseline)) for name in (system, baseline))
        logs.append(_log_ratio(own, other))
        generator = np.random.default_rng([seed, number])
        pools.append(block_deviations(headline, repeat[system], repeat[baseline], generator))
    if len(logs) < 2 or not np.isfinite(logs).all():
        return _Mean(fmean(logs), nan, len(logs))
    return _Mean(fmean(logs), _bootstrap_error(np.array(logs), pools, np.random.default_rng(seed)), len(logs))


def _bootstrap_error(
    logs: npt.NDArray[np.float64], pools: Sequence[npt.NDArray[np.float64]], generator: np.random.Generator
) -> float:
    """Standard error of the mean: repeats are drawn, and of each drawn one a resample of its blocks from its pool.

    A resample of n repeats varies less than n repeats do, by the factor (n - 1) / n.
    """
    num = len(logs)
    drawn = generator.integers(num, size=(NUM_RESAMPLES, num))
    within = np.array([pool[generator.integers(len(pool), size=NUM_RESAMPLES * num)] for pool in pools])
    places = np.arange(NUM_RESAMPLES * num).reshape(NUM_RESAMPLES, num)
    means = (logs[drawn] + within[drawn, places]).mean(axis=1)
    return float(means.std()) * sqrt(num / (num - 1))


def _ratio(mean: _Mean, p: float, band: float, headline: Headline, rule: Rule) -> Ratio:
    value = exp(mean.log) if isfinite(mean.log) else nan
    if mean.num < 2 or not isfinite(mean.log):
        return Ratio(value, band=band)
    from scipy.stats import t

    quantile, power = (float(t.ppf(share, mean.num - 1)) for share in ((1 + CONFIDENCE) / 2, POWER))
    low, high = exp(mean.log - quantile * mean.error), exp(mean.log + quantile * mean.error)
    smallest = exp((quantile + power) * mean.error) - 1.0
    ratio = Ratio(value, low, high, p, band, smallest)
    return Ratio(value, low, high, p, band, smallest, _outcome(ratio, headline.better, rule.margin))


def _outcome(ratio: Ratio, better: Better, margin: float) -> Outcome:
    """A certain difference that matters to nobody is none. Better or worse only where the test says so and the same
    system against itself would not come as far."""
    if 1 - margin < ratio.low and ratio.high < 1 + margin:
        return Outcome.EQUIVALENT
    if ratio.p < 1 - CONFIDENCE and not ratio.is_inside_band:
        return Outcome.BETTER if (ratio.value < 1) == (better is Better.LOWER) else Outcome.WORSE
    return Outcome.UNDECIDED


def _adjusted(found: dict[tuple[str, str], float], primary: str) -> dict[tuple[str, str], float]:
    """Holm's correction, for the verdict's metric and for all others apart; keys are metric and system."""
    adjusted: dict[tuple[str, str], float] = {}
    for is_primary in (True, False):
        family = {key: p for key, p in found.items() if (key[0] == primary) == is_primary}
        ranked = sorted((key for key, p in family.items() if isfinite(p)), key=lambda key: family[key])
        adjusted |= dict.fromkeys(family, nan)
        largest = 0.0
        for number, key in enumerate(ranked):
            largest = max(largest, min(family[key] * (len(ranked) - number), 1.0))
            adjusted[key] = largest
    return adjusted


def _band(by_repeat: Sequence[_Repeat], headline: Headline, baseline: str) -> float:
    """From pairs of servings of one system in one repeat; NaN where nothing was served twice.

    The logarithm of their ratio varies twice as much as that of one serving. A system's mean over the n servings of
    each of the repeats varies less by their number, and a ratio has two such means.
    """
    squares, num_servings = [], []
    for repeat in by_repeat:
        for system in repeat:
            values = _values(repeat, headline, system, baseline)
            if len(values) == 2 and headline.has_ratio:
                squares.append(_log_ratio(*values) ** 2 / 2)
            num_servings.append(len(values))
    if not squares or not np.isfinite(squares).all():
        return nan
    from scipy.stats import t

    spread = sqrt(2 * fmean(squares) / (fmean(num_servings) * len(by_repeat)))
    return exp(float(t.ppf((1 + CONFIDENCE) / 2, len(squares))) * spread) - 1.0


def _log_ratio(own: float, other: float) -> float:
    return log(own / other) if own > 0 and other > 0 else nan


def widest(rows: Iterable[Compared], rule: Rule) -> float | None:
    """Width of the widest interval of the verdict's metric; None without one."""
    (row,) = [row for row in rows if row.headline.name == rule.metric]
    widths = [ratio.high - ratio.low for ratio in row.ratios.values()]
    return max(widths) if widths and all(map(isfinite, widths)) else None
