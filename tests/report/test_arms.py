"""Instances, and options that differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.report.conftest import add_copies
from tests.run_folders import slot
from tetribench.report.arms import difference_table, instance_table
from tetribench.report.facts import Manifest
from tetribench.report.fairness import are_equal, arm_tables
from tetribench.report.runs import load_run
from tetribench.report.tables import Table


def texts(table: Table) -> dict[tuple[str, ...], list[str]]:
    return {row.heads: [cell.text for cell in row.cells] for row in table.rows}


def test_options_that_differ() -> None:
    same = {"a": 1, "list": [1, 2]}
    one = Manifest(instances={}, options=same | {"b": None, "order._target_": "package.order.SJF", "_target_": "x.A"})
    two = Manifest(instances={}, options=same | {"b": 2, "c": True, "order._target_": "package.order.FCFS"})
    assert list(texts(difference_table({"one": one, "two": two}, "two")).items()) == [
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


def test_many_systems_differ_from_the_baseline_one_below_the_other() -> None:
    usual: dict[str, Any] = {"a": 1, "order._target_": "package.order.SJF"}
    others: dict[str, dict[str, Any]] = {"w": {"a": 2}, "x": {"order._target_": "package.order.FCFS"}, "y": {"b": None}}
    manifests = {name: Manifest(instances={}, options=usual | own) for name, own in others.items()}
    table = difference_table(manifests | {"usual": Manifest(instances={}, options=usual)}, "usual")
    assert table.columns == ("value", "usual")
    assert list(texts(table).items()) == [
        (("w", "a"), ["2", "1"]),
        (("x", "order"), ["FCFS", "SJF"]),
        (("y", "b"), ["none", "not set"]),
    ]


def test_arms_are_compared_by_what_their_instances_said(make_run: Callable[..., Path]) -> None:
    path = make_run()
    manifest = slot(path, "tetri") / "manifest.json"
    content = json.loads(manifest.read_text())
    content["instances"]["decode_0"]["versions"] = {"torch": "2.11.0"}
    manifest.write_text(json.dumps(content))
    run = load_run(path)
    table, own = arm_tables(run)
    assert table.columns == ("vllm_like", "tetri") and not are_equal(run)
    found = texts(table)
    assert found[("devices",)] == ["1", "2"] and found[("KV memory (tokens)",)] == ["14,400", "28,800"]
    assert found[("versions",)] == ["torch 2.13.0", "torch 2.13.0; torch 2.11.0"]
    assert found[("decode.admit",)] == ["greedy", "reserve_dynamic"]
    assert ("device",) not in found and ("role",) not in found
    assert all("not set" in cells for cells in texts(own).values()) and not set(texts(own)) & set(found)


def test_a_system_is_equal_to_itself(make_run: Callable[..., Path]) -> None:
    path = make_run(systems=["vllm_like"])
    add_copies(path, ["vllm_like#2"], of="vllm_like")
    assert are_equal(load_run(path))
