"""One HTML page for a run: no script, no outside resource, light and dark, on a phone and on paper."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tetribench.metrics.cost import SYSTEM_METRICS
from tetribench.metrics.latency import ITL, METRICS
from tetribench.metrics.ledger import ACCOUNTS
from tetribench.report import validity, wording
from tetribench.report.arms import instance_table
from tetribench.report.fairness import are_equal, arm_tables
from tetribench.report.figures import Drawn
from tetribench.report.ledger_tables import class_cost_table, ledger_table
from tetribench.report.quantities import DASH
from tetribench.report.runs import Run
from tetribench.report.serving_tables import (
    CLASS_METRICS,
    change_table,
    class_table,
    decision_table,
    failure_table,
    resource_table,
    sla_table,
    stage_table,
    steady_table,
)
from tetribench.report.tables import Cell, Row, Table, comparison_table, percentile_needs
from tetribench.report.verdict import verdict_sentences

PERF_PER_DOLLAR = {
    "perf/$ (paper)": "(1 + fraction by which the mean JCT falls) / (resource usage time / the baseline's)",
    "perf/$ (usual)": "(the baseline's mean JCT / mean JCT) / (resource usage time / the baseline's)",
}


_WORDS = {"cpu": "CPU", "gpus": "GPUs", "dirty": "uncommitted changes"}
_UNITS = {"gib": "GiB", "mhz": "MHz"}
NOT_TOLD = "not told"


def render(template: str, **values: Any) -> str:
    """Fill one of the templates beside this file; everything in `values` is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(template).render(dash=DASH, percentiles=percentile_needs(), **values)


def breakable(text: str) -> Markup:
    """Escaped text whose long names may break after an underscore."""
    return Markup("_<wbr>").join(text.split("_"))


def run_page(run: Run, document: dict[str, Any], figures: Sequence[Drawn]) -> str:
    """The report of one run. `document` is its metrics.json."""
    pooled = document["pooled"]
    classes = [class_table(pooled, column) for column in CLASS_METRICS]
    return render(
        "template.html.jinja",
        run=run,
        title=wording.title(run),
        verdicts=verdict_sentences(run),
        sentence=wording.sentence(run, document),
        badges=wording.badges(run),
        stamp=wording.stamp(run),
        checks=validity.check_table(run),
        client=validity.client_rows(run),
        audits=[validity.arrival_table(run), validity.token_table(run), validity.machine_table(run)],
        left_out=validity.left_out(pooled),
        cautions=list(wording.cautions(run)),
        tiles=wording.tiles(run, document),
        interval=wording.interval(run),
        ratio_note=wording.RATIO_NOTE,
        comparison=comparison_table(run, document),
        figures=figures,
        steady=steady_table(pooled),
        steady_states=wording.steady_states(run),
        classes=classes,
        classes_note=max((table.note for table in classes), key=len),
        stages=stage_table(pooled),
        resources=resource_table(pooled),
        ledger=ledger_table(pooled),
        class_costs=class_cost_table(pooled),
        costs=wording.costs(run),
        failures=failure_table(run.requests),
        changes=change_table(run.served),
        decisions=decision_table(pooled),
        slo=wording.slo(run),
        sla=sla_table(pooled),
        instances=instance_table(run),
        arms=arm_tables(run),
        is_fair=are_equal(run),
        environment=list(_environment(run.environment)),
        glossary=_glossary(),
        repeat=_repeat(run),
    )


def _environment(environment: dict[str, Any]) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Groups of facts: those at the top first, then one for each nested dictionary or list entry."""
    top = {name: value for name, value in environment.items() if not isinstance(value, dict | list)}
    if top:
        yield "Program", list(_facts(top))
    for name, value in environment.items():
        if isinstance(value, dict) and value:
            yield _title_of(name), list(_facts(value))
        elif isinstance(value, list):
            rows = [(str(place), _fact_text(entry)) for place, entry in enumerate(value)]
            yield _title_of(name), rows or [("none", "")]


def _facts(values: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        words, _, suffix = name.rpartition("_")
        unit = _UNITS.get(suffix) if words else None
        text = _fact_text(value)
        yield _words(words if unit else name), f"{text} {unit}" if unit and value is not None else text


def _fact_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{fact} {text}" for fact, text in _facts(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_fact_text, value))
    return NOT_TOLD if value is None else str(value)


def _glossary() -> Table:
    table = Table("Glossary", ("metric",), ("column", "unit", "better", "formula"))
    rows = [(each.title, each.column, each.unit, str(each.better), each.formula) for each in (*METRICS, ITL)]
    rows += [(each.title, each.name, each.unit, str(each.better), each.formula) for each in SYSTEM_METRICS]
    rows += [(f"Ledger: {each.title}", each.column, "s", "", each.meaning) for each in ACCOUNTS]
    rows += [(title, "in the comparison", "ratio", "higher", formula) for title, formula in PERF_PER_DOLLAR.items()]
    table.rows.extend(Row((title,), tuple(map(Cell, rest))) for title, *rest in rows)
    return table


def _repeat(run: Run) -> list[tuple[str, str]]:
    commit, is_dirty = run.environment.get("commit", "unknown"), run.environment.get("dirty")
    seeds = f"{run.facts.seed}, and one more for each repeat" if run.num_repeats > 1 else str(run.facts.seed)
    return [
        ("seed", seeds),
        ("fingerprint of the requests", run.facts.repeats[0].fingerprint),
        ("commit", f"{commit}, changed" if is_dirty else str(commit)),
    ]


def _title_of(name: str) -> str:
    words = _words(name)
    return words[0].upper() + words[1:]


def _words(name: str) -> str:
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))
