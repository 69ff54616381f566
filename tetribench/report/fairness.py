"""Whether the arms were equal: what the running systems said of themselves where they differ, above any result."""

from math import isnan
from typing import Any

from tetribench.report.arms import difference_table, plain_text
from tetribench.report.quantities import DASH
from tetribench.report.runs import Run
from tetribench.report.tables import Cell, Row, Table

OWN = frozenset({"role", "device_uuid"})
"""Facts of an instance that say who it is, not what it is made of."""


def fairness_table(run: Run) -> Table:
    """Devices and KV memory of each system, the facts of its instances that others do not share, and the options.

    Facts are read back from the running engines, not from what was asked for.
    """
    options = difference_table(run.manifests, run.baseline)
    if run.has_many_systems:
        return options
    facts = {system: _facts(run, system) for system in run.systems}
    table = Table("How the arms differ", ("what",), tuple(run.systems), note=options.note if options.rows else "")
    sizes = sizes_of(run)
    table.rows.append(Row(("devices",), tuple(Cell(f"{devices:g}") for devices, _ in sizes.values())))
    table.rows.append(
        Row(
            ("KV memory (tokens)",),
            tuple(Cell(DASH if isnan(tokens) else f"{tokens:,.0f}") for _, tokens in sizes.values()),
        )
    )
    for name in dict.fromkeys(name for own in facts.values() for name in own):
        texts = [own.get(name, "not said") for own in facts.values()]
        if len(set(texts)) > 1:
            table.rows.append(Row((name.replace("_", " "),), tuple(map(Cell, texts))))
    table.rows.extend(options.rows)
    return table


def _facts(run: Run, system: str) -> dict[str, str]:
    """By name what all instances of a system say, each thing once."""
    found: dict[str, dict[str, None]] = {}
    instances: list[dict[str, Any]] = list(run.manifests[system].instances.values())
    for instance in instances:
        for name, value in instance.items():
            if name not in OWN:
                found.setdefault(name, {})[plain_text(value)] = None
    return {name: "; ".join(texts) for name, texts in found.items()}


def sizes_of(run: Run) -> dict[str, tuple[float, float]]:
    """By system its devices and the tokens that its KV memory holds, NaN where an instance does not say it."""
    return {
        result.system: (
            float(result.instances["num_devices"].sum()),
            float(result.instances["kv_capacity_tokens"].sum(skipna=False)),
        )
        for result in run.results
    }


def are_equal(run: Run) -> bool:
    """Whether all systems have as many devices and as much KV memory."""
    return len(set(sizes_of(run).values())) == 1
