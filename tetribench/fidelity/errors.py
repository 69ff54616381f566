"""Tables of errors, from the rows of all runs: signed, relative to what was measured, over the seeds.

What was measured of a seed is the mean over the servings of its requests; virtual time is compared with that.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from tetribench.calibrate.watch import MachineState, is_quiet
from tetribench.fidelity.rows import MACHINE, MEASURED, OVERHEADS, RESOURCES, SOURCES, STEPS, VIRTUAL
from tetribench.metrics.compare import OVERALL
from tetribench.metrics.intervals import ratio_interval

KEYS = ["system", "class", "metric", "statistic"]

BOUNDED = {("ttft_s", "mean"), ("jct_s", "mean")}
"""What the bounds are for."""
MEDIAN_BOUND, P90_BOUND = 0.05, 0.10
"""Of the size of the error over the seeds."""

_BEFORE_DECODE = ("send_delay_s", "route_s", "prefill_queue_s", "prefill_s")
STAGES_OF = {
    "ttft_s": (*_BEFORE_DECODE, "delivery_s"),
    "jct_s": (*_BEFORE_DECODE, "transfer_exposed_s", "transfer_s", "decode_queue_s", "decode_s"),
}
"""The stages of the whole; `transfer` and `decode_queue` are inside of `transfer_exposed`, or hidden by the prefill."""

HEADLINES = (
    ("ttft_s", "mean"),
    ("ttft_s", "p95"),
    ("tpot_s", "mean"),
    ("itl_s", "mean"),
    ("jct_s", "mean"),
    ("jct_s", "p95"),
    *((name, "total") for name in RESOURCES),
)


def error_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each system, class, metric and statistic; values are means over the seeds, in seconds.

    `error` is the mean over the seeds of virtual / measured - 1, and `steps`, `overheads` and `decisions` are what it
    sums up from; `error_median` is signed, `size_median` and `size_p90` are of its size. `real_median` and `real_p90`
    are of the size of the difference between two servings of a seed, relative to their mean: what real time itself is
    off by, NaN with one serving.
    """
    values = rows[rows["class"] != MACHINE]
    means = seed_means(values)
    wide = means[means[MEASURED] > 0]
    differences = {key: _differences(own) for key, own in values.groupby(KEYS, sort=False)}
    parts = {
        "error": wide[VIRTUAL] / wide[MEASURED] - 1,
        "steps": wide[STEPS] / wide[MEASURED] - 1,
        "overheads": (wide[OVERHEADS] - wide[STEPS]) / wide[MEASURED],
        "decisions": (wide[VIRTUAL] - wide[OVERHEADS]) / wide[MEASURED],
    }
    found = [
        _summary(dict(zip(KEYS, key, strict=True)), own, differences[key])
        for key, own in wide.assign(**parts).groupby(KEYS, sort=False)
    ]
    return pd.DataFrame(found)


def seed_means(values: pd.DataFrame) -> pd.DataFrame:
    """A row for each seed instead of each serving."""
    return values.groupby([*KEYS, "seed"], sort=False)[list(SOURCES)].mean().reset_index()


def _differences(own: pd.DataFrame) -> list[float]:
    """Between any two servings of a seed, relative to their mean."""
    by_seed = [measured.tolist() for _, measured in own.groupby("seed")[MEASURED]]
    pairs = [pair for measured in by_seed for pair in combinations(measured, 2) if sum(pair) > 0]
    return [2 * abs(one - other) / (one + other) for one, other in pairs]


def _summary(key: dict[str, object], own: pd.DataFrame, differences: list[float]) -> dict[str, object]:
    size = own["error"].abs()
    summary: dict[str, object] = {
        **key,
        "measured_s": own[MEASURED].mean(),
        "virtual_s": own[VIRTUAL].mean(),
        **{part: own[part].mean() for part in ("error", "steps", "overheads", "decisions")},
        "error_median": own["error"].median(),
        "size_median": size.median(),
        "size_p90": float(np.percentile(size, 90)),
        "real_median": float(np.median(differences)) if differences else np.nan,
        "real_p90": float(np.percentile(differences, 90)) if differences else np.nan,
        "num_seeds": len(own),
    }
    is_bounded = (key["metric"], key["statistic"]) in BOUNDED and key["class"] == OVERALL
    holds = size.median() < MEDIAN_BOUND and np.percentile(size, 90) < P90_BOUND
    return {**summary, "within_bounds": {True: "yes", False: "no"}[bool(holds)] if is_bounded else ""}


def headlines(errors: pd.DataFrame) -> pd.DataFrame:
    """The rows that sum a system up."""
    overall = errors[errors["class"] == OVERALL]
    chosen = [
        (metric, statistic) in HEADLINES
        for metric, statistic in zip(overall["metric"], overall["statistic"], strict=True)
    ]
    return overall[chosen].drop(columns="class").reset_index(drop=True)


def in_short(errors: pd.DataFrame) -> pd.DataFrame:
    """The headlines as a terminal has room for them: milliseconds and percents."""
    chosen = headlines(errors)
    names = chosen["metric"].str.removesuffix("_s") + " " + chosen["statistic"]
    short = pd.DataFrame({"system": chosen["system"], "metric": names, "ms": 1e3 * chosen["measured_s"]})
    columns = ("error", "size_median", "size_p90", "real_median", "real_p90")
    return short.assign(**{name.replace("size_", "").replace("_", " "): 100 * chosen[name] for name in columns})


def ratio_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Each other system against the last, which is the baseline: the measured ratio with its 95 % interval over the
    seeds, the virtual one, and whether virtual time has the order right wherever the measured interval excludes 1."""
    overall = seed_means(rows[rows["class"] == OVERALL])
    *others, baseline = dict.fromkeys(rows["system"])
    found = []
    for system in others:
        for metric, statistic in HEADLINES:
            own = overall[(overall["metric"] == metric) & (overall["statistic"] == statistic)]
            if own.empty:  # too few requests for the percentile
                continue
            by_system = {name: own[own["system"] == name].sort_values("seed") for name in (system, baseline)}
            ratios = {
                source: ratio_interval(*(by_system[name][source].tolist() for name in (system, baseline)))
                for source in (MEASURED, VIRTUAL)
            }
            measured, virtual = ratios[MEASURED], ratios[VIRTUAL]
            is_decided = measured.low > 1 or measured.high < 1
            agrees = (measured.value > 1) == (virtual.value > 1)
            found.append(
                {
                    "system": system,
                    "baseline": baseline,
                    "metric": metric,
                    "statistic": statistic,
                    "measured": measured.value,
                    "measured_low": measured.low,
                    "measured_high": measured.high,
                    "virtual": virtual.value,
                    "virtual_low": virtual.low,
                    "virtual_high": virtual.high,
                    "order": ("agrees" if agrees else "differs") if is_decided else "undecided",
                }
            )
    return pd.DataFrame(found)


def stage_table(rows: pd.DataFrame) -> pd.DataFrame:
    """By system and stage its mean and the error of that, in seconds and as a share of the mean TTFT or JCT (`of`).

    Means over the seeds. Not relative to the stage, because one may take next to nothing. The stages that follow one
    another sum up to the error of the whole; `delivery` is from the engine's first token to the client's.
    """
    means = rows[(rows["class"] == OVERALL) & (rows["statistic"] == "mean")]
    wide = means.pivot_table(index=["seed", "system"], columns="metric", values=[MEASURED, VIRTUAL], sort=False)
    found = []
    for system, own in wide.groupby("system", sort=False):
        means_of = own.groupby("system").mean().loc[system]
        measured, virtual = (_with_delivery(means_of[source]) for source in (MEASURED, VIRTUAL))
        for whole, stages in STAGES_OF.items():
            for stage in stages:
                if not np.isnan(measured.get(stage, np.nan)):
                    error_s = virtual[stage] - measured[stage]
                    found.append((system, whole, stage, measured[stage], error_s, error_s / measured[whole]))
    return pd.DataFrame(found, columns=["system", "of", "stage", "measured_s", "error_s", "share"])


def _with_delivery(means: "pd.Series[float]") -> "pd.Series[float]":
    return pd.concat([means, pd.Series({"delivery_s": means["ttft_s"] - means["ttft_engine_s"]})])


def run_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each run, by seed, system and serving: whether the machine was quiet, and how well its iterations were
    foretold."""
    facts = rows[rows["class"] == MACHINE]
    names = facts["metric"].where(facts["statistic"] == "value", facts["metric"] + "_" + facts["statistic"])
    table = facts.assign(fact=names).pivot_table(
        index=["seed", "system", "serving"], columns="fact", values=MEASURED, sort=False
    )
    table = table.reset_index().rename_axis(columns=None)
    states = _states(table, "")
    known = states + (_states(table, "calibration_") if "calibration_probe_median_s" in table else [])
    return table.assign(quiet=["yes" if is_quiet(state, known) else "no" for state in states])


def _states(runs: pd.DataFrame, prefix: str) -> list[MachineState]:
    columns = [f"{prefix}{name}" for name in ("other_cores", "probe_median_s", "probe_p90_s")]
    return [MachineState(*own) for own in runs.reindex(columns=columns).itertuples(index=False)]
