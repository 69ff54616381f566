"""One HTML page for a run: no script, no outside resource, light and dark, on a phone and on paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tetribench.metrics.latency import ITL, METRICS
from tetribench.metrics.resources import RESOURCE_METRICS
from tetribench.report.figures import Drawn
from tetribench.report.quantities import DASH, ratio_text, scale_for
from tetribench.report.runs import Run
from tetribench.report.tables import (
    CLASS_METRICS,
    Cell,
    Row,
    Table,
    class_table,
    comparison_table,
    difference_table,
    failure_table,
    instance_table,
    resource_table,
    stage_table,
    verdict,
)

HEADLINES = ("mean_ttft_s", "mean_jct_s", "resource_time_s", "perf_per_dollar_usual")
"""The metrics of the tiles; the first three make the sentence."""

NO_INTERVAL = "One run, no interval: it does not say how far another seed or another hour would differ."

VIRTUAL_TIME = (
    "Virtual time (cost model): a cost model predicts how long every step takes; nothing here was timed on hardware."
)

PERF_PER_DOLLAR = {
    "perf/$ (paper)": "(1 + fraction by which the mean JCT falls) / (resource usage time / the baseline's)",
    "perf/$ (usual)": "(the baseline's mean JCT / mean JCT) / (resource usage time / the baseline's)",
}


_ABBREVIATIONS = {"cpu": "CPU", "cpus": "CPUs", "gpu": "GPU", "gpus": "GPUs", "cuda": "CUDA", "os": "OS"}


@dataclass(frozen=True, slots=True)
class Badge:
    """`level` is empty, amber or red."""

    text: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class TileLine:
    """One system against the baseline: the ratio, and the two values."""

    ratio: Cell
    of: str


@dataclass(frozen=True, slots=True)
class Tile:
    title: str
    lines: list[TileLine]


def render(template: str, **values: Any) -> str:
    """Fill one of the templates beside this file; everything in `values` is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(template).render(dash=DASH, **values)


def breakable(text: str) -> Markup:
    """Escaped text whose long names may break after an underscore."""
    return Markup("_<wbr>").join(text.split("_"))


def run_page(run: Run, document: dict[str, Any], figures: Sequence[Drawn]) -> str:
    """The report of one run. `document` is its metrics.json."""
    classes = [class_table(run.results, column) for column in CLASS_METRICS]
    return render(
        "template.html.jinja",
        run=run,
        title=_title(run),
        sentence=_sentence(run, document),
        badges=_badges(run),
        stamp=_stamp(run),
        cautions=list(_cautions(run)),
        created=_created(run),
        tiles=_tiles(run, document),
        interval=NO_INTERVAL,
        comparison=comparison_table(run, document),
        figures=figures,
        classes=classes,
        classes_note=next((table.note for table in classes if table.note), ""),
        stages=stage_table(run.results),
        resources=resource_table(run.results),
        failures=failure_table(run.results),
        slo=_slo(run),
        instances=instance_table(run),
        differences=difference_table(run.manifests),
        environment=list(_environment(run.environment)),
        glossary=_glossary(),
        repeat=_repeat(run),
    )


def _title(run: Run) -> str:
    others = listed(run.others) if len(run.others) < 3 else f"{len(run.others)} systems"
    compared = f"{others} against {run.baseline}" if others else run.baseline
    return f"{compared} on {run.facts.workload}"


def _created(run: Run) -> str:
    created = datetime.fromisoformat(run.facts.created)
    return f"{created:%Y-%m-%d %H:%M} {created.tzname() or ''}".rstrip()


def _sentence(run: Run, document: dict[str, Any]) -> str:
    where = f"On {run.facts.num_requests:,} requests of workload {run.facts.workload}, in {run.time_kind}"
    rows = [row for row in document["comparison"] if row["metric"] in HEADLINES[:3]]
    titles = [_lower_first(row["title"]) for row in rows]
    if not run.others:
        amounts = [f"{_amount(row, run.baseline)} {title}" for row, title in zip(rows, titles, strict=True)]
        return f"{where}, {run.baseline} had {listed(amounts)}."
    ratios = {system: [ratio_text(row["ratios"][system]) for row in rows] for system in run.others}
    if len(ratios) == 1:
        parts = [f"{ratio} the {title}" for ratio, title in zip(ratios[run.others[0]], titles, strict=True)]
        return f"{where}, {run.others[0]} had {listed(parts)} of {run.baseline}."
    clauses = [f"{system} {listed(each)}" for system, each in ratios.items()]
    return f"{where}, {listed(titles)} as ratios to {run.baseline}: {'; '.join(clauses)}."


def _badges(run: Run) -> list[Badge]:
    counts = {result.system: result.accounting for result in run.results}
    num_failed = sum(each.failed for each in counts.values())
    num_unfinished = sum(each.unfinished for each in counts.values())
    badges = [
        Badge(run.status.state, "" if run.is_complete else "red"),
        Badge(run.time_kind, "amber" if run.is_virtual else ""),
        Badge(f"{run.facts.num_requests:,} requests"),
        Badge(f"{run.facts.num_cut:,} cut to fit", "amber" if run.facts.num_cut else ""),
        Badge(f"{num_failed:,} failed", "red" if num_failed else ""),
        Badge("one run"),
        Badge(f"seed {run.facts.seed}"),
    ]
    if num_unfinished:
        badges.insert(-2, Badge(f"{num_unfinished:,} unfinished", "red"))
    return badges


def _stamp(run: Run) -> str:
    """Says over everything else that a run did not complete."""
    if run.is_complete:
        return ""
    reason = f": {run.status.reason}" if run.status.reason else ""
    return f"{run.status.state.upper()}{reason}. What follows covers the run only as far as it came."


def _cautions(run: Run) -> Iterable[str]:
    """What a reader must know before believing a ratio."""
    if run.is_virtual:
        yield VIRTUAL_TIME
    yield NO_INTERVAL
    for result in run.results:
        counts = result.accounting
        lost = {"failed": counts.failed, "did not end": counts.unfinished}
        if any(lost.values()):
            fates = listed([f"{number:,} {fate}" for fate, number in lost.items() if number])
            yield f"{result.system}: of {counts.submitted:,} requests {fates}; its latencies describe the rest."
    yield from _size_cautions(run)


def _size_cautions(run: Run) -> Iterable[str]:
    sizes: dict[tuple[int, float], list[str]] = {}
    for result in run.results:
        size = int(result.instances["num_devices"].sum()), float(result.instances["kv_capacity_tokens"].sum())
        sizes.setdefault(size, []).append(result.system)
    if len(sizes) > 1:
        each = [
            f"{listed(systems)} {'has' if len(systems) == 1 else 'have'} {devices} device{'s' * (devices != 1)} "
            f"and KV memory for {tokens:,.0f} tokens"
            for (devices, tokens), systems in sizes.items()
        ]
        yield f"The systems differ in size: {'; '.join(each)}. Latencies do not pay for that, device-seconds do."


def _tiles(run: Run, document: dict[str, Any]) -> list[Tile]:
    rows = {row["metric"]: row for row in document["comparison"]}
    return [Tile(row["title"], _tile_lines(run, row)) for name in HEADLINES if run.others and (row := rows[name])]


def _tile_lines(run: Run, row: dict[str, Any]) -> list[TileLine]:
    lines = []
    for system in run.others:
        ratio = row["ratios"][system]
        amounts = f"{_amount(row, system)} against {_amount(row, run.baseline)}"
        of = f"{system}: {amounts}" if row["unit"] != "ratio" else f"{system}, against {run.baseline}"
        lines.append(TileLine(Cell(ratio_text(ratio), ratio, verdict=verdict(ratio, row["better"])), of))
    return lines


def _slo(run: Run) -> str:
    slo = run.facts.slo
    bounds = [
        f"{name} ≤ {scale_for([bound], 's').text_with_unit(bound)}"
        for name, bound in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s))
        if bound is not None
    ]
    if not bounds:
        return "No service level objective was set, so that every finished request counts towards goodput."
    return f"Service level objective: {' and '.join(bounds)}."


def _environment(environment: dict[str, Any]) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Groups of facts: those at the top first, then one for each nested dictionary or list entry."""
    top = {name: value for name, value in environment.items() if not isinstance(value, dict | list)}
    if top:
        yield "Program", list(_facts(top))
    for name, value in environment.items():
        if isinstance(value, dict) and value:
            yield _title_of(name), list(_facts(value))
        elif isinstance(value, list):
            rows = [(str(place), _fact_text("", entry)) for place, entry in enumerate(value)]
            yield _title_of(name), rows or [("none", "")]


def _facts(values: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        yield _words(name.removesuffix("_bytes")), _fact_text(name, value)


def _fact_text(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{fact} {text}" for fact, text in _facts(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and isinstance(value, int):
        return scale_for([value], "bytes").text_with_unit(value)
    return "none" if value is None else str(value)


def _glossary() -> Table:
    table = Table("Glossary", ("metric",), ("column", "unit", "better", "formula"))
    rows = [(each.title, each.column, each.unit, str(each.better), each.formula) for each in (*METRICS, ITL)]
    rows += [(each.title, each.name, each.unit, str(each.better), each.formula) for each in RESOURCE_METRICS]
    rows += [(title, "in the comparison", "ratio", "higher", formula) for title, formula in PERF_PER_DOLLAR.items()]
    table.rows.extend(Row((title,), tuple(map(Cell, rest))) for title, *rest in rows)
    return table


def _repeat(run: Run) -> list[tuple[str, str]]:
    return [
        ("seed", str(run.facts.seed)),
        ("fingerprint of the requests", run.facts.fingerprint),
        (
            "commit",
            str(run.environment.get("commit", "unknown")) + (", changed" if run.environment.get("dirty") else ""),
        ),
    ]


def _amount(row: dict[str, Any], system: str) -> str:
    value = row["values"][system]
    return scale_for([value], row["unit"]).text_with_unit(value)


def listed(parts: Sequence[str]) -> str:
    """The parts as a sentence names them: a, b and c."""
    return "".join(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lower_first(title: str) -> str:
    """`Mean TTFT` inside a sentence; an abbreviation keeps its capitals."""
    return title if title[1:2].isupper() else title[0].lower() + title[1:]


def _title_of(name: str) -> str:
    words = _words(name)
    return words[0].upper() + words[1:]


def _words(name: str) -> str:
    return " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))
