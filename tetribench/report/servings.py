"""Every serving that a run folder holds, measured."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tetribench.core.garbage import rarely_collected
from tetribench.metrics.audit import Asked
from tetribench.metrics.compare import Beside, SystemResult, measure
from tetribench.metrics.energy import read_energy
from tetribench.metrics.log import read_columns
from tetribench.metrics.paired import Served
from tetribench.report.facts import Facts, Machine, Slot, read_json
from tetribench.workload.files import read

ASKED = ["num_prompt_tokens", "max_output_tokens", "label", "sla_class"]
"""What a request is, by its names in the request table and in the file of requests."""


def measure_run(path: Path, facts: Facts, is_complete: bool) -> tuple[list[Served], list[str]]:
    """Every serving that was recorded; in a partial run, notes on those that were not."""
    served: list[Served] = []
    for number in range(len(facts.repeats)):
        known = {one.result.system for one in served}
        for one in measure_repeat(path, facts, number, is_complete=is_complete):
            served.append(one if one.result.system not in known else one._replace(result=one.result.lean()))
            known.add(one.result.system)
    if not served:
        raise ValueError(f"{path}: no system was measured")
    measured = {one.result.system for one in served}
    missing = [system for system in facts.systems if system not in measured]
    if missing and is_complete:
        raise ValueError(f"{path}: {missing[0]} was not measured in any repeat")
    whole, left_out = _whole(path, facts, served)
    notes = [f"{folder} was broken off and is left out." for folder in left_out]
    return whole, [
        *notes,
        *(f"{system} was not measured: the run ended before its first request." for system in missing),
    ]


def _whole(path: Path, facts: Facts, served: Sequence[Served]) -> tuple[list[Served], list[str]]:
    """Without servings that were broken off, if their system has others; and the folders of those."""
    folders = {one[:2]: facts.repeats[one.repeat].slots[one.slot].folder for one in served}
    broken_off = {place for place, folder in folders.items() if not (path / folder / "slot.json").is_file()}
    have_others = {one.result.system for one in served if one[:2] not in broken_off}
    left_out = [one[:2] for one in served if one[:2] in broken_off and one.result.system in have_others]
    return [one for one in served if one[:2] not in left_out], [folders[place] for place in left_out]


def measure_repeat(path: Path, facts: Facts, number: int, *, is_complete: bool) -> Iterator[Served]:
    """The servings of one repeat, measured one after the other.

    Raises ValueError where one was sent other requests than the repeat has, and, if `is_complete`, where one is
    missing.
    """
    asked = _asked(path, facts, number)
    for place, slot in enumerate(facts.repeats[number].slots):
        log = path / slot.folder / "events.jsonl"
        if is_complete and not log.with_name("slot.json").is_file():
            raise ValueError(f"{path}: {slot.folder}/slot.json is missing; the serving did not end")
        if log.is_file():
            with rarely_collected():
                beside = Beside(asked=asked, machine=_machine(path / slot.folder))
                energy = read_energy(log.with_name("energy.jsonl"))
                result = measure(slot.system, read_columns(log), facts.slo, facts.cost, energy, beside)
            if result.accounting.submitted:
                _check_requests(path / slot.folder, asked, result)
                yield Served(number, place, result)
                continue
        if is_complete:
            raise ValueError(f"{path}: {slot.folder}/events.jsonl is missing or has no request")


def _asked(path: Path, facts: Facts, number: int) -> Asked:
    file = path / "repeats" / str(number) / "requests.jsonl"
    if not file.is_file():
        raise ValueError(f"{file}: is missing; without it nobody knows what was asked")
    requests = read(file).requests
    rate_per_s, cv = (None, None) if facts.arrivals is None else (facts.arrivals.rate_per_s, facts.arrivals.cv)
    return Asked(requests=requests, concurrency=facts.concurrency, rate_per_s=rate_per_s, cv=cv)


def _machine(folder: Path) -> dict[str, Any]:
    """Nothing is known of a serving that was broken off."""
    found = folder / "slot.json"
    machine = read_json(found, Slot).machine if found.is_file() else Machine(num_cores=1, other_cores=None)
    return {"num_cores": machine.num_cores, "other_cores": machine.other_cores}


def _check_requests(folder: Path, asked: Asked, result: SystemResult) -> None:
    """Raises ValueError where a system was sent other requests than its repeat has, the same for all systems.

    A serving that was broken off recorded those that had arrived.
    """
    sent = zip(result.requests.index, *(result.requests[column] for column in ASKED), strict=True)
    for id, *values in sent:
        if id >= len(asked.requests) or values != [getattr(asked.requests[id], column) for column in ASKED]:
            raise ValueError(f"{folder}: request {id} is not the one in requests.jsonl of its repeat; incomparable")
