"""The tables of a report, independent of where they are shown: each is rows of cells that know their full value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import isnan
from typing import Any

import pandas as pd

from tetribench.metrics.compare import HEADLINE_PERCENT, HEADLINES, OVERALL, Summary
from tetribench.metrics.cost import COST_METRICS, SYSTEM_METRICS
from tetribench.metrics.latency import CRITICAL_PATH, METRICS, PERCENTILES, Better, num_samples_needed
from tetribench.metrics.paired import Served
from tetribench.metrics.steady import VALUES
from tetribench.report.frames import STATISTICS, class_names, metric_of
from tetribench.report.quantities import DASH, Scale, ratio_text, scale_for, scale_for_all
from tetribench.report.runs import MAX_ABREAST, Run

CLASS_METRICS = ("ttft_s", "ttft_engine_s", "jct_s", "tpot_s", "itl_s", "normalised_latency_s")

BESIDE = {"route": ("predict",), "transfer_exposed": ("reserve_wait", "transfer", "decode_queue")}
"""Stages that are no summands of the JCT, by the one after which they are listed."""

SAID_IN_TITLE = frozenset({"ratio", "requests", "preemptions", "device-s", "retries", "instances", "flips"})

SAME_WITHIN = 0.005
"""A ratio this near to 1 prints as 1.00 and is called neither better nor worse."""


BAND = "A/A band"
SMALLEST = "smallest effect"
SPREADS = {BAND: "band", SMALLEST: "smallest"}
"""Columns of the comparison that say how sure it is, by what they are called in metrics.json."""

SPREAD_NOTES = {
    BAND: f"{BAND}: how far the same system came from itself; what lies inside is grey.",
    SMALLEST: "Smallest effect: the change that this experiment would have found with a chance of 80%.",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """`path` leads to `value` in metrics.json, where it is one of its numbers; `verdict` is better, worse or empty.

    `is_spelled` shows the verdict as a word too; `below` is shown under the text.
    """

    text: str
    value: float | None = None
    path: tuple[str | int, ...] = ()
    verdict: str = ""
    is_spelled: bool = False
    below: "Cell | None" = None


@dataclass(frozen=True, slots=True)
class Row:
    """`heads` are the row's names, one for each of the table's head columns."""

    heads: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`heads` name the columns of row names, `columns` those of cells; `note` explains what is missing.

    `is_dense` says that there are many columns, which are to be narrow.
    """

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    note: str = ""
    is_dense: bool = False

    def transposed(self, head: str) -> "Table":
        """Rows as columns; `head` names what the columns were."""
        assert len(self.heads) == 1, "rows with several names would make columns with several names"
        cells = zip(*(row.cells for row in self.rows), strict=True)
        rows = [Row((column,), own) for column, own in zip(self.columns, cells, strict=True)]
        columns = tuple(row.heads[0] for row in self.rows)
        return Table(self.title, (head,), columns, rows, self.note, is_dense=True)

    @property
    def groups(self) -> list[list[Row]]:
        """Rows that follow one another and share their first name; each alone where there is only one name."""
        if len(self.heads) == 1:
            return [[row] for row in self.rows]
        return [list(rows) for _, rows in groupby(self.rows, key=lambda row: row.heads[0])]


def comparison_table(
    run: Run,
    document: dict[str, Any] | None = None,
    metrics: Sequence[str] = (),
    spreads: Sequence[str] = tuple(SPREADS),
) -> Table:
    """The headline metrics, or those named: a column for each system, and each one's ratio to the baseline.

    The ratio has a column of its own where there is one, else it stands below the value. Then come those of `spreads`
    that are known. Where the systems are too many to stand abreast they are the rows, and a verdict is a colour only.
    """
    document = document or run.document
    systems = [result.system for result in run.results]
    columns = [*systems, f"{run.others[0]} / {run.baseline}"] if len(run.others) == 1 else list(systems)
    spreads = [name for name in spreads if _is_known(document["comparison"], SPREADS[name])]
    note = _percentile_note((result.accounting.finished for result in run.results), HEADLINE_PERCENT)
    note = " ".join(filter(None, (note, *(SPREAD_NOTES[name] for name in spreads))))
    table = Table("Comparison", ("metric",), (*columns, *spreads), note=note)
    for number, row in enumerate(document["comparison"]):
        if metrics and row["metric"] not in metrics:
            continue
        scale, path = scale_for(row["values"].values(), row["unit"]), ("comparison", number)
        ratios = {
            system: Cell(
                ratio_text(ratio),
                ratio,
                (*path, "ratios", system),
                outcome(row["tests"][system], ratio, row["better"]),
                is_spelled=not run.has_many_systems,
                below=_interval(row["tests"][system]),
            )
            for system, ratio in row["ratios"].items()
        }
        cells = {system: _cell(scale, row["values"][system], (*path, "values", system)) for system in systems}
        grey = {system: replace(cells[system], verdict="muted") for system in ratios if _is_inside_band(row, system)}
        cells |= grey
        if len(run.others) == 1:
            shown = [*cells.values(), ratios.get(run.others[0], Cell(""))]
        else:
            shown = [replace(cell, below=ratios.get(system)) for system, cell in cells.items()]
        shown += [_spread_cell(row["tests"], SPREADS[name], path) for name in spreads]
        unit = "" if row["unit"] in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((row["title"] + unit,), tuple(shown)))
    return table.transposed("system") if run.has_many_systems else table


def outcome(test: Mapping[Any, Any], ratio: float | None, better: str) -> str:
    """What is known of a ratio; of a single repeat which way it points, if it leaves the A/A band."""
    return str(test["outcome"]) or ("undecided" if test["is_inside_band"] else verdict(ratio, better))


def _is_known(rows: Sequence[dict[str, Any]], key: str) -> bool:
    return any(test[key] is not None for row in rows for test in row["tests"].values())


def _is_inside_band(row: dict[str, Any], system: str) -> bool:
    return bool(row["tests"][system]["is_inside_band"])


def _spread_cell(tests: dict[str, dict[str, Any]], key: str, path: tuple[str | int, ...]) -> Cell:
    """Of several systems the largest, which holds for all of them."""
    found = {system: test[key] for system, test in tests.items() if test[key] is not None}
    if not found:
        return Cell(DASH if tests else "")
    system = max(found, key=lambda system: found[system])
    return Cell(f"{'±' * (key == 'band')}{found[system]:.1%}", found[system], (*path, "tests", system, key), "muted")


def _interval(test: dict[str, Any]) -> Cell | None:
    return None if test["low"] is None else Cell(f"[{test['low']:.2f}, {test['high']:.2f}]", verdict="muted")


def verdict(ratio: float | None, better: str) -> str:
    """Which way a ratio to the baseline points; empty where it is undefined or 1.00."""
    if ratio is None or abs(ratio - 1) < SAME_WITHIN:
        return ""
    return "better" if (ratio < 1) == (better == Better.LOWER) else "worse"


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
        _percentile_note((summary["count"] for *_, summary in found), PERCENTILES[-1]),
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
                _cell(scale, state[part][name], ("pooled", system, "steady_state", part, name))
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
        cells = (*numbers, _cell(scale, share, (*path, "attained_share")))
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
    is_again = len(served) > len({one.result.system for one in served})
    for repeat, slot, result in served:
        name = f"{result.system} (repeat {repeat}, slot {slot})" if is_again else result.system
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
        cells = (_cell(scale, own[name], ("pooled", system, "decisions", name)) for system, own in found.items())
        unit_text = "" if unit in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((title + unit_text,), tuple(cells)))
    return table


def _cell(scale: Scale, value: float | None, path: tuple[str | int, ...]) -> Cell:
    return Cell(scale.text(value), value, path)


def _statistics(
    scale: Scale, summary: dict[str, Any], path: tuple[str | int, ...], below_mean: Cell | None
) -> tuple[Cell, ...]:
    count = Cell(f"{summary['count']:,}", summary["count"], (*path, "count"))
    mean, *others = (_cell(scale, summary[statistic], (*path, statistic)) for statistic in STATISTICS[1:])
    return count, replace(mean, below=below_mean), *others


def _mean_cell(scale: Scale, value: dict[str, Any], path: tuple[str | int, ...]) -> Cell:
    """With its range below it, where there is one."""
    return replace(_cell(scale, value["mean"], (*path, "mean")), below=_range(scale, value["lowest"], value["highest"]))


def _range(scale: Scale, lowest: float | None, highest: float | None) -> Cell | None:
    return None if lowest == highest else _bounds(scale, lowest, highest, "{} to {}")


def _bounds(scale: Scale, low: float | None, high: float | None, form: str) -> Cell | None:
    """Both ends in `form`; None where they are unknown."""
    return None if low is None else Cell(form.format(scale.text(low), scale.text(high)), verdict="muted")


def percentile_needs() -> str:
    """How many samples each percentile needs."""
    return ", ".join(f"p{percent} needs {num_samples_needed(percent)}" for percent in PERCENTILES)


def _percentile_note(num_samples: Iterable[int], highest_percent: int) -> str:
    """Says why percentiles are missing, if one up to the highest shown is."""
    is_whole = min(num_samples) >= num_samples_needed(highest_percent)
    return "" if is_whole else f"{DASH}: undefined, or too few samples for a percentile ({percentile_needs()})."
