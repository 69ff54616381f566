"""Instances, and options that differ."""

from pathlib import Path

from tetribench.report.arms import difference_table, instance_table
from tetribench.report.runs import Manifest, load_run
from tetribench.report.tables import Table


def texts(table: Table) -> dict[tuple[str, ...], list[str]]:
    return {row.heads: [cell.text for cell in row.cells] for row in table.rows}


def test_options_that_differ() -> None:
    same = {"a": 1, "list": [1, 2]}
    one = Manifest(instances={}, options=same | {"b": None, "order._target_": "package.order.SJF", "_target_": "x.A"})
    two = Manifest(instances={}, options=same | {"b": 2, "c": True, "order._target_": "package.order.FCFS"})
    assert list(texts(difference_table({"one": one, "two": two})).items()) == [
        (("b",), ["none", "2"]),
        (("order",), ["SJF", "FCFS"]),
        (("system",), ["A", "not set"]),
        (("c",), ["not set", "True"]),
    ]


def test_instances_show_their_facts(reported: Path) -> None:
    table = instance_table(load_run(reported))
    assert table.columns == ("role", "num blocks", "device")
    assert texts(table)[("tetri", "decode_0")] == ["decode", "900", "cost model"]
    assert table.note == "The same in all instances: stop token ids none, versions torch 2.13.0."
