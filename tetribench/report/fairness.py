"""Whether the arms were equal: what the running systems said of themselves where they differ, above any result."""

from dataclasses import replace
from math import isnan
from typing import Any, NamedTuple

from tetribench.report.arms import NOT_SET, difference_table, plain_text
from tetribench.report.quantities import DASH
from tetribench.report.runs import Run
from tetribench.report.tables import Cell, Row, Table

OWN = frozenset({"role", "device_uuid"})
"""Facts of an instance that say who it is, not what it is made of."""


class ArmTables(NamedTuple):
    """`differing`: devices and KV memory of each system, the facts of its instances that others do not share, and the
    options that all have, with different values. `own`: options that not all have at all, which say how a system works.

    Facts are read back from the running engines, not from what was asked for.
    """

    differing: Table
    own: Table


def arm_tables(run: Run) -> ArmTables:
    """Whether the arms were equal, for the page; where systems are many, options only."""
    options = difference_table(run.manifests, run.baseline)
    is_own = [any(cell.text == NOT_SET for cell in row.cells) for row in options.rows]
    own = replace(options, rows=[row for row, its_own in zip(options.rows, is_own, strict=True) if its_own])
    differing = replace(options, note="", rows=[row for row in options.rows if row not in own.rows])
    if run.has_many_systems:
        return ArmTables(differing, own)
    table = Table("How the arms differ", ("what",), tuple(run.systems))
    sizes = sizes_of(run)
    table.rows.append(Row(("devices",), tuple(Cell(f"{devices:g}") for devices, _ in sizes.values())))
    kv_tokens = (DASH if isnan(tokens) else f"{tokens:,.0f}" for _, tokens in sizes.values())
    table.rows.append(Row(("KV memory (tokens)",), tuple(map(Cell, kv_tokens))))
    facts = {system: _facts(run, system) for system in run.systems}
    for name in dict.fromkeys(name for own_facts in facts.values() for name in own_facts):
        texts = [own_facts.get(name, "not said") for own_facts in facts.values()]
        if len(set(texts)) > 1:
            table.rows.append(Row((name.replace("_", " "),), tuple(map(Cell, texts))))
    table.rows.extend(differing.rows)
    return ArmTables(table, own)


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
