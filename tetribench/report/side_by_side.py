"""Several runs on one page: the same systems under different workloads."""

from collections.abc import Hashable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import pandas as pd

from tetribench.metrics.intervals import Interval, repeated_interval
from tetribench.report.digest import Digest
from tetribench.report.figure_pareto import AXES, pareto_curves
from tetribench.report.figure_ratios import RATIO_METRICS, ratio_bars, ratio_dots
from tetribench.report.figures import Drawn, keep
from tetribench.report.html import render
from tetribench.report.quantities import ratio_text, scale_for
from tetribench.report.runs import MAX_ABREAST
from tetribench.report.style import SYSTEMS, drawing, system_looks
from tetribench.report.tables import Cell, Row, Table, outcome, verdict
from tetribench.report.wording import NO_INTERVAL, RATIO_NOTE, VIRTUAL_TIME, compared_systems, listed

VALUE_METRICS = (
    "mean_ttft_s",
    "p95_ttft_s",
    "mean_jct_s",
    "p95_jct_s",
    "output_throughput_tokens_per_s",
    "resource_time_s",
    "num_failed",
)

CAPTION = (
    "Ratios to the baseline, which is the line at 1, on a logarithmic axis. A bar to the left of the line is better, "
    "one to the right of it worse; a grey one lies inside the A/A band. Lines are 95 % intervals over repeats."
)


INTERVALS = (
    "Intervals (95 %) are over the repeats of a run; one of a single repeat has none. What lies inside the A/A band, "
    "as far as the same system came from itself, is grey."
)

RANGE = "The range over a few runs is no confidence interval: more seeds would widen it."

DOTS = (
    "Ratios to the baseline, which is the line at 1, on a logarithmic axis: a dot for each run, a bar at their mean. "
    "To the left of the line is better; hollow grey dots lie inside the A/A band."
)


PARETO = (
    "Each mark is a system's mean over the servings of a run, numbered as in the table of runs; a line joins the runs "
    "of a system. Large marks are efficient: no other one is as good in both and better in one. Axes do not start at 0."
)


NO_TEST = {"low": None, "high": None, "outcome": "", "is_inside_band": False}
"""What is known of the ratio of the baseline to itself."""


def ratio_frame(runs: Sequence[Digest]) -> pd.DataFrame:
    """A row for each run, headline metric and system: `value` in `unit`, and `ratio`, NaN for the baseline itself.

    Each has the bounds of its 95 % interval over the repeats of the run, NaN without any; the ratio also has the
    `outcome` of its test, and whether it `is_inside_band` of the same system against itself. `workload` is the name of
    the run where two runs have one workload.
    Raises ValueError where the runs do not have one baseline, or one of them has nothing to compare it with.
    """
    baselines = sorted({run.baseline for run in runs})
    if len(baselines) != 1:
        raise ValueError(
            f"runs side by side need one baseline, these have {listed(baselines) if baselines else 'none'}"
        )
    for run in runs:
        if not run.others:
            raise ValueError(f"{run.path}: only {run.baseline} was measured; side by side needs a second system")
    workloads = [run.facts.workload for run in runs]
    rows = []
    for run in runs:
        facts = run.facts
        name = facts.workload if workloads.count(facts.workload) == 1 else facts.name
        about = {"workload": name, "run": facts.name, "runtime": facts.runtime, "seed": facts.seed}
        for row in run.comparison:
            what = {key: row[key] for key in ("metric", "title", "unit", "better")}
            for system, value in row["values"].items():
                interval = _value_interval(run.servings, row["metric"], system)
                test = row["tests"].get(system, NO_TEST)
                numbers = {"system": system, "value": value, "value_low": interval.low, "value_high": interval.high}
                numbers |= {"ratio": row["ratios"].get(system), **{name: test[name] for name in NO_TEST}}
                rows.append(about | {"num_requests": facts.num_requests} | what | numbers)
    return pd.DataFrame(rows).astype(
        dict.fromkeys(("value", "value_low", "value_high", "ratio", "low", "high"), "float64")
    )


def _value_interval(servings: Sequence[dict[str, Any]], metric: str, system: str) -> Interval:
    values = [(one["repeat"], one["values"][metric]) for one in servings if one["system"] == system]
    return repeated_interval((repeat, nan if value is None else value) for repeat, value in values)


def pareto_frame(runs: Sequence[Digest]) -> pd.DataFrame:
    """A row for each run, numbered from 1, and system: the means over its servings, as `serving_points` has them."""
    means = [run.points.groupby("system", sort=False)[AXES].mean() for run in runs]
    return pd.concat(means, keys=range(1, len(runs) + 1), names=["run"]).reset_index()


def draw(runs: Sequence[Digest], frame: pd.DataFrame, folder: Path) -> list[Drawn]:
    """The ratios, and of as many systems as can be told apart what a device delivers; into `folder`."""
    baseline = runs[0].baseline
    looks = system_looks(list(frame["system"].unique()), baseline)
    kinds = sorted({run.facts.time_kind for run in runs})
    subtitle = f"{len(runs)} runs · {sum(run.facts.num_requests for run in runs):,} requests · {listed(kinds)}"
    with drawing():
        if len(looks) > len(SYSTEMS):
            return [keep(ratio_dots(frame, baseline, subtitle), folder, "side_by_side", DOTS)]
        drawn = [keep(ratio_bars(frame, looks, baseline, subtitle), folder, "side_by_side", CAPTION)]
        curves = pareto_curves(pareto_frame(runs), looks, subtitle)
        return drawn if curves is None else [*drawn, keep(curves, folder, "pareto", PARETO)]


def page(runs: Sequence[Digest], frame: pd.DataFrame, figures: Sequence[Drawn]) -> str:
    """The page, self-contained as the report of one run is."""
    baseline, others = runs[0].baseline, [name for name in frame["system"].unique() if name != runs[0].baseline]
    workloads = {run.facts.workload for run in runs}
    is_repeated = len(runs) > 1 and len(workloads) == 1
    cautions = [RANGE if is_repeated else NO_INTERVAL]
    if any(run.num_repeats > 1 for run in runs):
        cautions = [RANGE, INTERVALS] if is_repeated else [INTERVALS]
    if any(run.facts.is_virtual for run in runs):
        cautions.insert(0, VIRTUAL_TIME)
    if len({run.facts.time_kind for run in runs}) > 1:
        cautions.append("Some runs are in virtual and some in real time; their seconds do not compare.")
    where = listed(sorted(workloads)) if is_repeated else f"{frame['workload'].nunique()} workloads"
    return render(
        "side_by_side.html.jinja",
        title=f"{compared_systems(others, baseline)} on {where}",
        sentence=_sentence(frame, baseline),
        cautions=cautions,
        figures=figures,
        spread=[_spread_table(frame, len(runs))] if is_repeated else [],
        ratios=_ratio_table(frame),
        values=_value_table(frame),
        runs=_run_table(runs),
        commands="\n".join(run.facts.command for run in runs),
    )


def _sentence(frame: pd.DataFrame, baseline: str) -> str:
    others = frame[frame["system"] != baseline]
    if others["system"].nunique() >= MAX_ABREAST:
        num_runs = frame["workload"].nunique()
        return f"{num_runs} runs of {baseline} and {others['system'].nunique()} other systems, as ratios to {baseline}."
    clauses = []
    for system, own in others.groupby("system", sort=False):
        ranges = []
        for metric in RATIO_METRICS:
            found = own.loc[own["metric"] == metric]
            low, high = ratio_text(found["ratio"].min()), ratio_text(found["ratio"].max())
            title = found["title"].iloc[0]
            ranges.append(f"{low} to {high} the {title[0].lower()}{title[1:]}")
        clauses.append(f"{system} had {listed(ranges)} of {baseline}")
    return f"Over the workloads, {'; '.join(clauses)}."


def _spread_table(frame: pd.DataFrame, num_runs: int) -> Table:
    """The mean ratio of each system over runs of one workload, and below it the range.

    A verdict is given where no run contradicts it.
    """
    compared = _compared(frame)
    titles = dict(zip(compared["metric"], compared["title"], strict=True))
    note = f"Mean ratio over {num_runs} runs; below it the lowest and the highest. Coloured where all runs agree."
    table = Table("Over the runs", ("system",), tuple(titles.values()), note=note, is_dense=True)
    for system, own in compared.groupby("system", sort=False):
        cells = []
        for metric in titles:
            found = own[own["metric"] == metric]
            ratios, better = found["ratio"], found["better"].iloc[0]
            verdicts = {verdict(ratio, better) for ratio in ratios}
            agreed = verdicts.pop() if len(verdicts) == 1 else ""
            below = Cell(f"{ratio_text(ratios.min())} to {ratio_text(ratios.max())}")
            cells.append(Cell(ratio_text(ratios.mean()), ratios.mean(), verdict=agreed, below=below))
        table.rows.append(Row((str(system),), tuple(cells)))
    return table


def _compared(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose ratio means something."""
    return frame[frame["ratio"].notna() & ~frame["metric"].isin(["num_finished", "num_failed"])]


def _ratio_table(frame: pd.DataFrame) -> Table:
    compared = _compared(frame)
    titles = dict(zip(compared["metric"], compared["title"], strict=True))
    table = Table(
        "Ratios to the baseline", ("workload", "system"), tuple(titles.values()), note=RATIO_NOTE, is_dense=True
    )
    for (workload, system), own in compared.groupby(["workload", "system"], sort=False):
        by_metric = {row["metric"]: _ratio_cell(row) for row in own.to_dict("records")}
        cells = (by_metric.get(metric, Cell(ratio_text(None))) for metric in titles)
        table.rows.append(Row((str(workload), str(system)), tuple(cells)))
    return table


def _ratio_cell(row: dict[Hashable, Any]) -> Cell:
    below = None if isnan(row["low"]) else Cell(f"[{row['low']:.2f}, {row['high']:.2f}]", verdict="muted")
    found = "muted" if row["is_inside_band"] else outcome(row, row["ratio"], row["better"])
    return Cell(ratio_text(row["ratio"]), row["ratio"], verdict=found, below=below)


def _value_table(frame: pd.DataFrame) -> Table:
    chosen = frame[frame["metric"].isin(VALUE_METRICS)]
    titles = dict(zip(chosen["metric"], chosen["title"], strict=True))
    table = Table("Values", ("workload", "system"), tuple(titles.values()), is_dense=True)
    for (workload, system), own in chosen.groupby(["workload", "system"], sort=False):
        table.rows.append(Row((str(workload), str(system)), tuple(map(_value_cell, own.to_dict("records")))))
    return table


def _value_cell(row: dict[Hashable, Any]) -> Cell:
    scale = scale_for([row["value"]], "" if row["unit"] == "requests" else row["unit"])
    low, high = row["value_low"], row["value_high"]
    below = None if isnan(low) or low == high else Cell(f"[{scale.text(low)}, {scale.text(high)}]", verdict="muted")
    return Cell(scale.text_with_unit(row["value"]), row["value"], below=below)


def _run_table(runs: Sequence[Digest]) -> Table:
    table = Table("Runs", ("run",), ("workload", "time", "requests", "cut", "seed", "fingerprint", "folder"))
    for run in runs:
        facts = run.facts
        texts = (facts.workload, run.facts.time_kind, f"{facts.num_requests:,}", f"{facts.num_cut:,}", _seeds(run))
        cells = (*texts, facts.repeats[0].fingerprint[:12], run.path.name)
        table.rows.append(Row((facts.name,), tuple(map(Cell, cells))))
    return table


def _seeds(run: Digest) -> str:
    first, last = run.facts.repeats[0].seed, run.facts.repeats[-1].seed
    return str(first) if first == last else f"{first} to {last}"
