"""Tables of what all servings of each system say together: by class, by stage, of resources, of decisions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import pandas as pd

from tetribench.metrics.compare import HEADLINES, OVERALL, Summary
from tetribench.metrics.cost import COST_METRICS, SYSTEM_METRICS
from tetribench.metrics.latency import CRITICAL_PATH, METRICS, PERCENTILES
from tetribench.metrics.paired import Served
from tetribench.metrics.steady import VALUES
from tetribench.report.frames import STATISTICS, class_names, metric_of
from tetribench.report.quantities import DASH, Scale, scale_for, scale_for_all
from tetribench.report.runs import MAX_ABREAST, serving_names
from tetribench.report.tables import SAID_IN_TITLE, Cell, Row, Table, percentile_note, value_cell

CLASS_METRICS = ("ttft_s", "ttft_engine_s", "jct_s", "tpot_s", "itl_s", "normalised_latency_s")

BESIDE = {"route": ("predict",), "transfer_exposed": ("reserve_wait", "transfer", "decode_queue")}
"""Stages that are no summands of the JCT, by the one after which they are listed."""


def over_servings(pooled: Mapping[str, Summary], before: str, after: str) -> str:
    """`before` and `after` around how many servings a system had; nothing where all had one."""
    fewest, most = (end(summary["num_servings"] for summary in pooled.values()) for end in (min, max))
    number = str(most) if fewest == most else f"{fewest} to {most}"
    return "" if most == 1 else f"{before} the {number} servings of a system{after}"


def class_table(pooled: Mapping[str, Summary], column: str) -> Table:
    """The distribution of one latency metric: a row for each class and system."""
    found = [
        (label, system, metrics[column])
        for label in class_names(pooled)
        for system, summary in pooled.items()
        if (metrics := summary["metrics"].get(label)) is not None
    ]
    scale = scale_for_all((summary["mean"] for *_, summary in found), "s")
    title = f"{metric_of(column).title}, {scale.unit}"
    has_interval = any(summary["low"] is not None for *_, summary in found)
    below = ", the mean with its 95 % interval over repeats" if has_interval else ""
    notes = (
        over_servings(pooled, "Of all samples of", f" together{below}."),
        percentile_note((summary["count"] for *_, summary in found), PERCENTILES[-1]),
    )
    table = Table(title, ("class", "system"), STATISTICS, note=" ".join(filter(None, notes)))
    for label, system, summary in found:
        path = ("pooled", system, "metrics", label, column)
        below_mean = _bounds(scale, summary["low"], summary["high"], "[{}, {}]")
        table.rows.append(Row((label or "no class", system), _statistics(scale, summary, path, below_mean)))
    return table


def stage_table(pooled: Mapping[str, Summary]) -> Table:
    """Where requests spent their time: a row for each stage and system; stages that nobody has are left out."""
    stages = (
        "From send delay to decode the stages follow one another without a gap and sum to the JCT of a request that "
        "has them all; those marked · are not summands: they run inside the prefill queue or the handover, or beside "
        "the prefill."
    )
    means = ", the mean with the lowest and the highest mean of a single one"
    note = " ".join(filter(None, (stages, over_servings(pooled, "Of all samples of", f" together{means}."))))
    table = Table("Stages", ("stage", "system"), STATISTICS, note=note)
    titles = {metric.name: metric.title for metric in METRICS}
    for name in _stage_order():
        summaries = {system: summary["metrics"][OVERALL][f"{name}_s"] for system, summary in pooled.items()}
        if not any(summary["count"] for summary in summaries.values()):
            continue
        scale = scale_for_all((summary["mean"] for summary in summaries.values()), "s")
        title = f"{'· ' * (name not in CRITICAL_PATH)}{titles[name]} ({scale.unit})"
        for system, summary in summaries.items():
            path = ("pooled", system, "metrics", OVERALL, f"{name}_s")
            below = _range(scale, summary["lowest_mean"], summary["highest_mean"])
            table.rows.append(Row((title, system), _statistics(scale, summary, path, below)))
    return table


def _stage_order() -> Iterable[str]:
    for name in CRITICAL_PATH:
        yield name
        yield from BESIDE.get(name, ())


def resource_table(pooled: Mapping[str, Summary]) -> Table:
    """What each system used and delivered, and its busy time by role."""
    found = {system: summary["resources"] for system, summary in pooled.items()}
    note = over_servings(pooled, "Means over", ", with the lowest and the highest.")
    table = Table("Resources and throughput", ("metric",), tuple(found), note=note, is_dense=len(found) > MAX_ABREAST)
    known = {metric.name: (metric.title, metric.unit) for metric in SYSTEM_METRICS}
    names = dict.fromkeys(name for resources in found.values() for name in resources)
    optional = {metric.name for metric in COST_METRICS}
    for name in names:
        own = {system: resources[name] for system, resources in found.items() if name in resources}
        if name in optional and all(value["mean"] is None for value in own.values()):
            continue  # no price was set, or no energy measured, which is said beside the table
        role = name.removeprefix("busy_").removesuffix("_instances_s")
        title, unit = known.get(name, (f"Busy time of {role} instances", "s"))
        scale = scale_for((value["mean"] for value in own.values()), unit)
        cells = tuple(
            _mean_cell(scale, own[system], ("pooled", system, "resources", name)) if system in own else Cell(DASH)
            for system in found
        )
        unit_text = "" if unit in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((title + unit_text,), cells))
    return table


_TITLES = {metric.name: (metric.title, metric.unit) for metric in (*SYSTEM_METRICS, *HEADLINES)}

STEADY = {name: _TITLES[name] for name in VALUES}
"""Title and unit of what is known of a steady state."""


def steady_table(pooled: Mapping[str, Summary]) -> Table:
    """Each system's whole run beside its steady state; of systems without one there is nothing."""
    note = over_servings(
        pooled, "Latencies are of all requests, rates are means over those of", " with a steady state."
    )
    table = Table("Steady state", ("metric", "system"), ("whole run", "steady state", "change"), note=note)
    states = {system: summary["steady_state"] for system, summary in pooled.items()}
    steady = {system: state for system, state in states.items() if state["num_servings"]}
    for name, (title, unit) in STEADY.items():
        values = (state[part][name] for state in steady.values() for part in ("whole", "inside"))
        scale = scale_for_all(values, unit)
        for system, state in steady.items():
            whole, inside = state["whole"][name], state["inside"][name]
            cells = [
                value_cell(scale, state[part][name], ("pooled", system, "steady_state", part, name))
                for part in ("whole", "inside")
            ]
            change = DASH if not whole or inside is None else f"{inside / whole - 1:+.1%}"
            table.rows.append(Row((f"{title} ({scale.unit})", system), (*cells, Cell(change))))
    return table


def sla_table(pooled: Mapping[str, Summary]) -> Table:
    """SLO attainment of each SLA class; empty where there is one class only, whose is that of all requests."""
    scale = scale_for([1.0], "share")
    columns = ("requests", "attained", f"attained ({scale.unit})")
    note = over_servings(pooled, "Requests of all", ".")
    table = Table("SLO attainment by SLA class", ("SLA class", "system"), columns, note=note)
    classes = sorted({name for summary in pooled.values() for name in summary["slo"]})
    found = [(name, system) for name in classes for system in pooled if name in pooled[system]["slo"]]
    for name, system in found if len(classes) > 1 else []:
        counts, path = pooled[system]["slo"][name], ("pooled", system, "slo", name)
        numbers = [Cell(f"{counts[key]:,}", counts[key], (*path, key)) for key in ("num_submitted", "num_attained")]
        share = counts["attained_share"]
        cells = (*numbers, value_cell(scale, share, (*path, "attained_share")))
        table.rows.append(Row((name, system), cells))
    return table


def failure_table(requests: Mapping[str, Sequence[pd.DataFrame]]) -> Table:
    """How many requests of each system failed, by reason; `requests` are the tables of its servings."""
    table = Table("Failures", ("system", "reason"), ("requests",))
    for system, tables in requests.items():
        reasons = pd.concat([each.loc[each["failed_s"].notna(), "reason"] for each in tables])
        for reason, count in reasons.fillna("unknown").value_counts().items():
            table.rows.append(Row((system, str(reason)), (Cell(f"{count:,}"),)))
    return table


def change_table(served: Sequence[Served]) -> Table:
    """Flips, losses, arrivals and departures of instances; times count from the first arrival.

    Of each serving, which is named where there are several of a system.
    """
    note = (
        "A flip takes the time to drain, in which the instance finishes what it holds, and its overhead: from the "
        "decision until the control plane knows of the new role."
    )
    heads, columns = ("system", "instance"), ("at (s)", "what", "drain (ms)", "overhead (ms)", "why")
    has_flips = any((one.result.changes["what"] == "flip").any() for one in served)
    table = Table("Changes of instances", heads, columns, note=note if has_flips else "")
    for name, (_, _, result) in zip(serving_names(served), served, strict=True):
        origin_s = float(result.requests["arrived_s"].min())
        for change in result.changes.to_dict("records"):
            what = " ".join(filter(None, (change["what"], change["role"], change["to"] and f"to {change['to']}")))
            durations_s = [change["drain_s"], change["overhead_s"]]
            durations = [DASH if isnan(seconds) else f"{1e3 * seconds:.1f}" for seconds in durations_s]
            texts = (f"{change['time_s'] - origin_s:.2f}", what, *durations, change["reason"] or DASH)
            table.rows.append(Row((name, change["instance"]), tuple(map(Cell, texts))))
    return table


DECISIONS = {
    "num_decisions": ("Dispatches", "requests"),
    "single_share": ("One candidate only", "share"),
    "tied_share": ("Candidates with equal interference", "share"),
    "busier_share": ("Chosen one has more decodes than another", "share"),
    "none_fitting_share": ("No instance with room, where the policy looks", "share"),
    "mean_age_s": ("Age of the loads, mean", "s"),
    "max_age_s": ("Age of the loads, longest", "s"),
}


def decision_table(pooled: Mapping[str, Summary]) -> Table:
    """What dispatchers had to decide, in the systems in which they had a choice; empty where none had."""
    summaries = {system: summary["decisions"] for system, summary in pooled.items()}
    found = {system: own for system, own in summaries.items() if own["single_share"] not in (None, 1.0)}
    share = (
        "Interference on an instance is its share of heavy decodes, with the request among them (paper section 3.3.4)."
    )
    note = " ".join(filter(None, (share, over_servings(pooled, "Decisions of all", "."))))
    table = Table("Dispatch decisions", ("of the dispatches",), tuple(found), note=note)
    for name, (title, unit) in DECISIONS.items() if found else ():
        scale = scale_for((decisions[name] for decisions in found.values()), unit)
        cells = (value_cell(scale, own[name], ("pooled", system, "decisions", name)) for system, own in found.items())
        unit_text = "" if unit in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((title + unit_text,), tuple(cells)))
    return table


def _statistics(
    scale: Scale, summary: dict[str, Any], path: tuple[str | int, ...], below_mean: Cell | None
) -> tuple[Cell, ...]:
    count = Cell(f"{summary['count']:,}", summary["count"], (*path, "count"))
    mean, *others = (value_cell(scale, summary[statistic], (*path, statistic)) for statistic in STATISTICS[1:])
    return count, replace(mean, below=below_mean), *others


def _mean_cell(scale: Scale, value: dict[str, Any], path: tuple[str | int, ...]) -> Cell:
    """With its range below it, where there is one."""
    return replace(
        value_cell(scale, value["mean"], (*path, "mean")), below=_range(scale, value["lowest"], value["highest"])
    )


def _range(scale: Scale, lowest: float | None, highest: float | None) -> Cell | None:
    return None if lowest == highest else _bounds(scale, lowest, highest, "{} to {}")


def _bounds(scale: Scale, low: float | None, high: float | None, form: str) -> Cell | None:
    """Both ends in `form`; None where they are unknown."""
    return None if low is None else Cell(form.format(scale.text(low), scale.text(high)), verdict="muted")
