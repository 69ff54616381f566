"""Tables of the ledger: where the time of every instance went, and what each class of requests used."""

from collections.abc import Mapping, Sequence
from typing import Any

from tetribench.metrics.compare import OVERALL, SystemResult
from tetribench.metrics.ledger import ACCOUNTS
from tetribench.report.figure_instances import ordered
from tetribench.report.frames import class_names
from tetribench.report.quantities import Scale, scale_for
from tetribench.report.tables import Cell, Row, Table

ALL = "all"
"""The row of a system's instances together."""


def ledger_table(results: Sequence[SystemResult]) -> Table:
    """A row for each instance, and one for all of a system; a column for each account that anybody has."""
    used = [account for account in ACCOUNTS if any(result.ledger[account.column].gt(0).any() for result in results)]
    scale = scale_for((seconds for result in results for seconds in result.ledger["provisioned_s"]), "s")
    columns = ("from start to stop", *(account.title for account in used))
    title = f"Where the time of every instance went, {scale.unit} and share"
    table = Table(title, ("system", "instance"), columns, note=_unattributed(results), is_dense=True)
    names = ["provisioned_s", *(account.column for account in used)]
    for result in results:
        ledger, path = result.summary["ledger"], ("systems", result.system, "ledger")
        if len(result.ledger) > 1:
            table.rows.append(Row((result.system, ALL), _cells(scale, ledger["total"], names, (*path, "total"))))
        for instance in ordered(result.instances):
            cells = _cells(scale, ledger["instances"][instance], names, (*path, "instances", instance))
            table.rows.append(Row((result.system, instance), cells))
    return table


def _cells(scale: Scale, row: Mapping[str, Any], names: Sequence[str], path: tuple[str, ...]) -> tuple[Cell, ...]:
    """The first of `names` is the whole; the others are shown with their shares of it."""
    whole_s = row[names[0]] or 1.0
    below = [None, *(Cell(f"{row[name] / whole_s:.1%}") for name in names[1:])]
    return tuple(
        Cell(scale.text(row[name]), row[name], (*path, name), below=under)
        for name, under in zip(names, below, strict=True)
    )


def _unattributed(results: Sequence[SystemResult]) -> str:
    """Says whose computed time is nobody's."""
    found = {result.system: result.summary["ledger"]["unattributed_s"] for result in results}
    scale = scale_for(found.values(), "s")
    texts = [f"{scale.text_with_unit(seconds)} of {system}" for system, seconds in found.items() if seconds > 0]
    return f"Iterations that only swap KV are charged to no request: {', '.join(texts)}." if texts else ""


def class_cost_table(results: Sequence[SystemResult]) -> Table:
    """What each class of requests used while the system served; empty where there is one class only."""
    has_price = any(result.summary["cost"][OVERALL]["cost_per_request_usd"] is not None for result in results)
    names = ["busy_device_seconds", "device_seconds", "device_seconds_per_request"]
    heads = ["computed (device-s)", "with its share of idle (device-s)", "per request (device-s)"]
    note = "A class bears what was idle in proportion to what was computed for it."
    if has_price:
        names.append("cost_per_request_usd")
        heads.append("per request (USD)")
    table = Table("Device-seconds by class", ("class", "system"), tuple(heads), note=note)
    classes, number = class_names(results), Scale(1.0, "")
    for label in classes if len(classes) > 1 else []:
        for result in results:
            own = result.summary["cost"].get(label)
            if own is not None:
                path = ("systems", result.system, "cost", label)
                cells = [Cell(number.text(own[name]), own[name], (*path, name)) for name in names]
                table.rows.append(Row((label, result.system), tuple(cells)))
    return table
