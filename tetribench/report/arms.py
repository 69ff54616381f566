"""What the compared systems ran with: their instances, and every option in which they differ."""

from typing import Any

from tetribench.report.facts import Manifest
from tetribench.report.runs import MAX_ABREAST, Run
from tetribench.report.tables import Cell, Row, Table

INSTANCE_FACTS = ("role", "num_blocks", "device")
"""Shown for each instance, even where they are the same for all."""

NOT_SET = "not set"
_MISSING = object()


def difference_table(manifests: dict[str, Manifest], baseline: str) -> Table:
    """Every option that is not the same in all systems; first those that all systems have.

    Where the systems are too many to stand abreast, each one's differences from the baseline stand below each other.
    """
    if len(manifests) > MAX_ABREAST:
        return _stacked(manifests, baseline)
    note = f"{NOT_SET}: the system has no such option."
    table = Table("Options that differ", ("option",), tuple(manifests), note=note)
    options = {option for manifest in manifests.values() for option in manifest.options}
    found = {option: [each.options.get(option, _MISSING) for each in manifests.values()] for option in options}
    for option in sorted(found, key=lambda option: (_MISSING in found[option], option)):
        values = found[option]
        if any(value != values[0] for value in values):
            table.rows.append(
                Row((_option_name(option),), tuple(Cell(_option_text(option, value)) for value in values))
            )
    return table


def _stacked(manifests: dict[str, Manifest], baseline: str) -> Table:
    """A row for each system and option in which it differs from the baseline."""
    note = f"{NOT_SET}: the system has no such option."
    table = Table("Options that differ", ("system", "option"), ("value", baseline), note=note)
    usual = manifests[baseline].options
    for system, manifest in manifests.items():
        both = dict.fromkeys([*usual, *manifest.options])
        values = {option: (manifest.options.get(option, _MISSING), usual.get(option, _MISSING)) for option in both}
        differing = [option for option, (own, other) in values.items() if own != other]
        for option in sorted(differing, key=lambda option: (_MISSING in values[option], option)):
            cells = tuple(Cell(_option_text(option, value)) for value in values[option])
            table.rows.append(Row((system, _option_name(option)), cells))
    return table


def _option_name(option: str) -> str:
    """A component goes by the place that it is chosen for."""
    return option.removesuffix("_target_").removesuffix(".") or "system" if option.endswith("_target_") else option


def _option_text(option: str, value: Any) -> str:
    """Of a component its class."""
    text = plain_text(value)
    return text.rpartition(".")[-1] if option.endswith("_target_") else text


def instance_table(run: Run) -> Table:
    """The instances of each system with what their engines reported; facts that all share stand in the note."""
    instances = [instance for manifest in run.manifests.values() for instance in manifest.instances.values()]
    facts = {
        name: [instance.get(name, _MISSING) for instance in instances]
        for name in dict.fromkeys(name for instance in instances for name in instance)
    }
    shared = {name: values[0] for name, values in facts.items() if all(value == values[0] for value in values)}
    columns = [name for name in facts if name in INSTANCE_FACTS or name not in shared]
    texts = [f"{_words(name)} {plain_text(value)}" for name, value in shared.items() if name not in columns]
    note = f"The same in all instances: {', '.join(texts)}." if texts else ""
    table = Table("Instances", ("system", "instance"), tuple(map(_words, columns)), note=note)
    for system, manifest in run.manifests.items():
        for instance, reported in manifest.instances.items():
            cells = tuple(Cell(plain_text(reported.get(name, _MISSING))) for name in columns)
            table.rows.append(Row((system, instance), cells))
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")


def plain_text(value: Any) -> str:
    """An option's or a fact's value, as people read it."""
    if value is _MISSING:
        return NOT_SET
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain_text, value)) or "none"
    return "none" if value is None else f"{value:,}" if type(value) is int else str(value)
