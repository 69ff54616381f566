"""The tables of a report, independent of where they are shown: each is rows of cells that know their full value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import isnan
from typing import Any

from tetribench.metrics.compare import HEADLINE_PERCENT, OVERALL, Summary, SystemResult
from tetribench.metrics.cost import COST_METRICS, SYSTEM_METRICS
from tetribench.metrics.latency import CRITICAL_PATH, METRICS, PERCENTILES, Better, num_samples_needed
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


def outcome(test: dict[str, Any], ratio: float | None, better: str) -> str:
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


def class_table(results: Sequence[SystemResult], column: str) -> Table:
    """The distribution of one latency metric: a row for each class and system."""
    found = [
        (label, result.system, metrics[column])
        for label in class_names(results)
        for result in results
        if (metrics := result.summary["metrics"].get(label)) is not None
    ]
    scale = scale_for_all((summary["mean"] for *_, summary in found), "s")
    title = f"{metric_of(column).title}, {scale.unit}"
    note = _percentile_note((summary["count"] for *_, summary in found), PERCENTILES[-1])
    table = Table(title, ("class", "system"), STATISTICS, note=note)
    for label, system, summary in found:
        path = ("systems", system, "metrics", label, column)
        table.rows.append(Row((label or "no class", system), _statistics(scale, summary, path)))
    return table


def stage_table(results: Sequence[SystemResult]) -> Table:
    """Where requests spent their time: a row for each stage and system; stages that nobody has are left out."""
    note = (
        "From send delay to decode the stages follow one another without a gap and sum to the JCT of a request that "
        "has them all; those marked · are not summands: they run inside the prefill queue or the handover, or beside "
        "the prefill."
    )
    table = Table("Stages", ("stage", "system"), STATISTICS, note=note)
    titles = {metric.name: metric.title for metric in METRICS}
    for name in _stage_order():
        summaries = {result.system: result.summary["metrics"][OVERALL][f"{name}_s"] for result in results}
        if not any(summary["count"] for summary in summaries.values()):
            continue
        scale = scale_for_all((summary["mean"] for summary in summaries.values()), "s")
        title = f"{'· ' * (name not in CRITICAL_PATH)}{titles[name]} ({scale.unit})"
        for system, summary in summaries.items():
            path = ("systems", system, "metrics", OVERALL, f"{name}_s")
            table.rows.append(Row((title, system), _statistics(scale, summary, path)))
    return table


def _stage_order() -> Iterable[str]:
    for name in CRITICAL_PATH:
        yield name
        yield from BESIDE.get(name, ())


def resource_table(results: Sequence[SystemResult]) -> Table:
    """What each system used and delivered, and its busy time by role."""
    systems = tuple(result.system for result in results)
    table = Table("Resources and throughput", ("metric",), systems, is_dense=len(systems) > MAX_ABREAST)
    known = {metric.name: (metric.title, metric.unit) for metric in SYSTEM_METRICS}
    names = dict.fromkeys(name for result in results for name in result.summary["resources"])
    optional = {metric.name for metric in COST_METRICS}
    for name in names:
        if name in optional and all(result.summary["resources"].get(name) is None for result in results):
            continue  # no price was set, or no energy measured, which is said beside the table
        role = name.removeprefix("busy_").removesuffix("_instances_s")
        title, unit = known.get(name, (f"Busy time of {role} instances", "s"))
        found = {result.system: result.summary["resources"] for result in results}
        scale = scale_for((resources.get(name) for resources in found.values()), unit)
        cells = tuple(
            _cell(scale, resources[name], ("systems", system, "resources", name)) if name in resources else Cell(DASH)
            for system, resources in found.items()
        )
        unit_text = "" if unit in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((title + unit_text,), cells))
    return table


STEADY = {
    "mean_ttft_s": ("Mean TTFT", "s", ("metrics", OVERALL, "ttft_s", "mean")),
    "p95_ttft_s": ("p95 TTFT", "s", ("metrics", OVERALL, "ttft_s", "p95")),
    "mean_tpot_s": ("Mean TPOT", "s", ("metrics", OVERALL, "tpot_s", "mean")),
    "mean_jct_s": ("Mean JCT", "s", ("metrics", OVERALL, "jct_s", "mean")),
    "p95_jct_s": ("p95 JCT", "s", ("metrics", OVERALL, "jct_s", "p95")),
    "request_throughput_per_s": ("Request throughput", "requests/s", ("resources", "request_throughput_per_s")),
    "output_throughput_tokens_per_s": (
        "Output throughput",
        "tokens/s",
        ("resources", "output_throughput_tokens_per_s"),
    ),
}
"""Title and unit of what is known of a steady state, and where the same of the whole run stands in a summary."""


def steady_table(results: Sequence[SystemResult]) -> Table:
    """Each system's whole run beside its steady state; of systems without one there is nothing."""
    table = Table("Steady state", ("metric", "system"), ("whole run", "steady state", "change"))
    steady = [result for result in results if result.summary["steady_state"]["why_not"] is None]
    for name, (title, unit, path) in STEADY.items():
        pairs = [(_at(result.summary, path), _at(result.summary, ("steady_state", name))) for result in steady]
        scale = scale_for_all((value for pair in pairs for value in pair), unit)
        for result, (whole, inside) in zip(steady, pairs, strict=True):
            at = ("systems", result.system)
            change = DASH if not whole or inside is None else f"{inside / whole - 1:+.1%}"
            cells = (
                _cell(scale, whole, (*at, *path)),
                _cell(scale, inside, (*at, "steady_state", name)),
                Cell(change),
            )
            table.rows.append(Row((f"{title} ({scale.unit})", result.system), cells))
    return table


def _at(summary: Summary, path: Sequence[str]) -> float | None:
    found: Any = summary
    for name in path:
        found = found[name]
    return None if found is None else float(found)


def sla_table(results: Sequence[SystemResult]) -> Table:
    """SLO attainment of each SLA class; empty where there is one class only, whose is that of all requests."""
    scale = scale_for([1.0], "share")
    columns = ("requests", "attained", f"attained ({scale.unit})")
    table = Table("SLO attainment by SLA class", ("SLA class", "system"), columns)
    classes = sorted({name for result in results for name in result.summary["slo"]})
    found = [(name, result) for name in classes for result in results if name in result.summary["slo"]]
    for name, result in found if len(classes) > 1 else []:
        counts, path = result.summary["slo"][name], ("systems", result.system, "slo", name)
        numbers = [Cell(f"{counts[key]:,}", counts[key], (*path, key)) for key in ("num_submitted", "num_attained")]
        share = counts["attained_share"]
        cells = (*numbers, _cell(scale, share, (*path, "attained_share")))
        table.rows.append(Row((name, result.system), cells))
    return table


def failure_table(results: Sequence[SystemResult]) -> Table:
    """How many requests of each system failed, by reason."""
    table = Table("Failures", ("system", "reason"), ("requests",))
    for result in results:
        reasons = result.requests.loc[result.requests["failed_s"].notna(), "reason"]
        for reason, count in reasons.fillna("unknown").value_counts().items():
            table.rows.append(Row((result.system, str(reason)), (Cell(f"{count:,}"),)))
    return table


def change_table(results: Sequence[SystemResult]) -> Table:
    """Flips, losses, arrivals and departures of instances; times count from the first arrival."""
    note = (
        "A flip takes the time to drain, in which the instance finishes what it holds, and its overhead: from the "
        "decision until the control plane knows of the new role."
    )
    heads, columns = ("system", "instance"), ("at (s)", "what", "drain (ms)", "overhead (ms)", "why")
    has_flips = any((result.changes["what"] == "flip").any() for result in results)
    table = Table("Changes of instances", heads, columns, note=note if has_flips else "")
    for result in results:
        origin_s = float(result.requests["arrived_s"].min())
        for change in result.changes.to_dict("records"):
            what = " ".join(filter(None, (change["what"], change["role"], change["to"] and f"to {change['to']}")))
            durations_s = [change["drain_s"], change["overhead_s"]]
            durations = [DASH if isnan(seconds) else f"{1e3 * seconds:.1f}" for seconds in durations_s]
            texts = (f"{change['time_s'] - origin_s:.2f}", what, *durations, change["reason"] or DASH)
            table.rows.append(Row((result.system, change["instance"]), tuple(map(Cell, texts))))
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


def decision_table(results: Sequence[SystemResult]) -> Table:
    """What dispatchers had to decide, in the systems in which they had a choice; empty where none had."""
    summaries = {one.system: one.summary["decisions"] for one in results}
    found = {system: own for system, own in summaries.items() if own["single_share"] not in (None, 1.0)}
    note = (
        "Interference on an instance is its share of heavy decodes, with the request among them (paper section 3.3.4)."
    )
    table = Table("Dispatch decisions", ("of the dispatches",), tuple(found), note=note)
    for name, (title, unit) in DECISIONS.items() if found else ():
        scale = scale_for((decisions[name] for decisions in found.values()), unit)
        cells = (_cell(scale, own[name], ("systems", system, "decisions", name)) for system, own in found.items())
        unit_text = "" if unit in SAID_IN_TITLE else f" ({scale.unit})"
        table.rows.append(Row((title + unit_text,), tuple(cells)))
    return table


def _cell(scale: Scale, value: float | None, path: tuple[str | int, ...]) -> Cell:
    return Cell(scale.text(value), value, path)


def _statistics(scale: Scale, summary: dict[str, Any], path: tuple[str | int, ...]) -> tuple[Cell, ...]:
    count = Cell(f"{summary['count']:,}", summary["count"], (*path, "count"))
    return (count, *(_cell(scale, summary[statistic], (*path, statistic)) for statistic in STATISTICS[1:]))


def percentile_needs() -> str:
    """How many samples each percentile needs."""
    return ", ".join(f"p{percent} needs {num_samples_needed(percent)}" for percent in PERCENTILES)


def _percentile_note(num_samples: Iterable[int], highest_percent: int) -> str:
    """Says why percentiles are missing, if one up to the highest shown is."""
    is_whole = min(num_samples) >= num_samples_needed(highest_percent)
    return "" if is_whole else f"{DASH}: undefined, or too few samples for a percentile ({percentile_needs()})."
