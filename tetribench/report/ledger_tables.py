"""Tables of the ledger: where the time of every instance went, and what each class of requests used."""

from collections.abc import Mapping, Sequence
from typing import Any

from tetribench.metrics.compare import OVERALL, Summary
from tetribench.metrics.ledger import ACCOUNTS
from tetribench.report.figure_instances import ordered
from tetribench.report.frames import class_names
from tetribench.report.quantities import Scale, scale_for
from tetribench.report.serving_tables import over_servings
from tetribench.report.tables import Cell, Row, Table

ALL = "all"
"""The row of a system's instances together."""


def ledger_table(pooled: Mapping[str, Summary]) -> Table:
    """A row for each instance, and one for all of a system; a column for each account that anybody has."""
    ledgers = {system: summary["ledger"] for system, summary in pooled.items()}
    used = [account for account in ACCOUNTS if any(own["total"][account.column] > 0 for own in ledgers.values())]
    rows = [row for ledger in ledgers.values() for row in ledger["instances"].values()]
    scale = scale_for((row["provisioned_s"] for row in rows), "s")
    columns = ("from start to stop", *(account.title for account in used))
    title = f"Where the time of every instance went, {scale.unit} and share"
    note = " ".join(filter(None, (over_servings(pooled, "Seconds are summed over", "."), _unattributed(ledgers))))
    table = Table(title, ("system", "instance"), columns, note=note, is_dense=True)
    names = ["provisioned_s", *(account.column for account in used)]
    for system, ledger in ledgers.items():
        path, instances = ("pooled", system, "ledger"), ledger["instances"]
        if len(instances) > 1:
            table.rows.append(Row((system, ALL), _cells(scale, ledger["total"], names, (*path, "total"))))
        for instance in ordered({name: row["role"] for name, row in instances.items()}):
            cells = _cells(scale, instances[instance], names, (*path, "instances", instance))
            table.rows.append(Row((system, instance), cells))
    return table


def _cells(scale: Scale, row: Mapping[str, Any], names: Sequence[str], path: tuple[str, ...]) -> tuple[Cell, ...]:
    """The first of `names` is the whole; the others are shown with their shares of it."""
    whole_s = row[names[0]] or 1.0
    below = [None, *(Cell(f"{row[name] / whole_s:.1%}") for name in names[1:])]
    return tuple(
        Cell(scale.text(row[name]), row[name], (*path, name), below=under)
        for name, under in zip(names, below, strict=True)
    )


def _unattributed(ledgers: Mapping[str, Any]) -> str:
    """Says whose computed time is nobody's."""
    found = {system: ledger["unattributed_s"] for system, ledger in ledgers.items()}
    scale = scale_for(found.values(), "s")
    texts = [f"{scale.text_with_unit(seconds)} of {system}" for system, seconds in found.items() if seconds > 0]
    return f"Iterations that only swap KV are charged to no request: {', '.join(texts)}." if texts else ""


def class_cost_table(pooled: Mapping[str, Summary]) -> Table:
    """What each class of requests used while the system served; empty where there is one class only."""
    has_price = any(summary["cost"][OVERALL]["cost_per_request_usd"] is not None for summary in pooled.values())
    names = ["busy_device_seconds", "device_seconds", "device_seconds_per_request"]
    heads = ["computed (device-s)", "with its share of idle (device-s)", "per request (device-s)"]
    share = "A class bears what was idle in proportion to what was computed for it."
    note = " ".join(filter(None, (share, over_servings(pooled, "Device-seconds are summed over", "."))))
    if has_price:
        names.append("cost_per_request_usd")
        heads.append("per request (USD)")
    table = Table("Device-seconds by class", ("class", "system"), tuple(heads), note=note)
    classes, number = class_names(pooled), Scale(1.0, "")
    for label in classes if len(classes) > 1 else []:
        for system, summary in pooled.items():
            own = summary["cost"].get(label)
            if own is not None:
                path = ("pooled", system, "cost", label)
                cells = [Cell(number.text(own[name]), own[name], (*path, name)) for name in names]
                table.rows.append(Row((label, system), tuple(cells)))
    return table
