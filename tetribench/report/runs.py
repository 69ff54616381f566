"""From a run folder on disk to everything known about the run, measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tetribench.core.garbage import rarely_collected
from tetribench.metrics.audit import Asked
from tetribench.metrics.client_error import ClientError
from tetribench.metrics.compare import Beside, SystemResult, measure
from tetribench.metrics.document import metrics_document
from tetribench.metrics.limits import Limits
from tetribench.metrics.log import read_events
from tetribench.metrics.paired import Compared, Outcome, Served, compare
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo
from tetribench.metrics.validity import Validity, judge
from tetribench.workload.files import read

SCHEMA_VERSION = 4
"""Of run.json."""

MAX_ABREAST = 3
"""So many systems fit beside each other as columns of a table of values and ratios."""

ASKED = ["num_prompt_tokens", "max_output_tokens", "label", "sla_class"]
"""Columns of the request table that are the same for all systems of a repeat."""

VIRTUAL_RUNTIMES = frozenset({"sim"})

Parsed = TypeVar("Parsed")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """status.json; `state` is one of running, complete, interrupted, failed."""

    state: str
    reason: str | None = None


class SlotFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One serving of a repeat's requests, and its folder below that of the run."""

    system: str
    folder: str


class RepeatFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was served on the same requests, in this order; `fingerprint` is theirs."""

    seed: int
    fingerprint: str
    slots: list[SlotFacts]


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """The process that arrivals are drawn from."""

    rate_per_s: float
    cv: float


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """run.json: what was asked, and every repeat that was begun."""

    schema_version: int
    name: str
    workload: str
    runtime: str
    seed: int
    systems: list[str]
    baseline: str
    command: str
    num_requests: int
    num_cut: int
    slo: Slo
    concurrency: int | None
    arrivals: Arrivals | None
    limits: Limits
    verdict: Rule
    until_interval_width: float | None = None
    created: datetime
    repeats: list[RepeatFacts]
    notes: list[str] = []


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What other programs did to this many cores meanwhile; None where nobody knows."""

    num_cores: int
    other_cores: float | None


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """slot.json, written when a serving has ended."""

    machine: Machine


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json of one system: the facts of its instances by name, and its resolved options, flat."""

    instances: dict[str, dict[str, Any]]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. `baseline` and `notes` are those of `facts`, unless the run is partial and lacks a system.

    Of `served` only the first serving of each system keeps its iterations and transfers. `client` is None where the
    client was not calibrated. An INVALID run has ratios and no outcomes.
    """

    path: Path
    facts: Facts
    status: Status
    baseline: str
    notes: list[str]
    config_yaml: str
    environment: dict[str, Any]
    manifests: dict[str, Manifest]
    served: list[Served]
    compared: list[Compared]
    client: ClientError | None
    validity: Validity

    @property
    def results(self) -> list[SystemResult]:
        """The first serving of each system, in the order of the run's systems."""
        return [next(one.result for one in self.served if one.result.system == system) for system in self.systems]

    @property
    def systems(self) -> list[str]:
        """Those that were measured."""
        measured = {one.result.system for one in self.served}
        return [system for system in self.facts.systems if system in measured]

    @property
    def document(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return metrics_document(
            self.results,
            self.compared,
            baseline=self.baseline,
            rule=self.facts.verdict,
            num_repeats=self.num_repeats,
        )

    @property
    def num_repeats(self) -> int:
        return len({one.repeat for one in self.served})

    @property
    def is_complete(self) -> bool:
        return self.status.state == "complete"

    @property
    def is_virtual(self) -> bool:
        return self.facts.runtime in VIRTUAL_RUNTIMES

    @property
    def time_kind(self) -> str:
        """What the run's seconds are, in words."""
        return "virtual time (cost model)" if self.is_virtual else f"real time ({self.facts.runtime})"

    @property
    def others(self) -> list[str]:
        """The systems that are compared with the baseline."""
        return [system for system in self.systems if system != self.baseline]

    @property
    def has_many_systems(self) -> bool:
        """More systems than can stand abreast."""
        return len(self.systems) > MAX_ABREAST


def load_run(path: Path, *, allow_partial: bool = False) -> Run:
    """Read and measure the run at `path`.

    Raises ValueError, in one line, where it is no run folder, has another schema version, is damaged, or did not
    complete. With `allow_partial` a run that did not complete is read as far as it came.
    """
    for name in ("run.json", "status.json"):
        if not (path / name).is_file():
            raise ValueError(f"{path}: not a run folder (it has no {name})")
    version = _read(path / "run.json", dict[str, Any]).get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: run.json has schema version {version}, this program reads {SCHEMA_VERSION}")
    facts, status = _read(path / "run.json", Facts), _read(path / "status.json", Status)
    is_complete = status.state == "complete"
    if not is_complete and not allow_partial:
        reason = f" ({status.reason})" if status.reason else ""
        raise ValueError(f"{path}: the run is {status.state}{reason}; only a complete run is reported")
    served, notes = _measure(path, facts, is_complete)
    measured = {one.result.system for one in served}
    baseline = facts.baseline
    if baseline not in measured:
        if is_complete:
            raise ValueError(f"{path}: baseline={baseline} is not among the systems of the run: {', '.join(measured)}")
        baseline = next(system for system in facts.systems if system in measured)
        notes.append(f"The baseline {facts.baseline} was not measured; ratios are to {baseline}.")
    config, environment, calibrated = path / "config.yaml", path / "environment.json", path / "client.json"
    compared = compare(served, baseline, facts.verdict, facts.seed)
    client = _read(calibrated, ClientError) if calibrated.is_file() else None
    validity = judge(
        served,
        compared,
        client,
        baseline=baseline,
        rule=facts.verdict,
        limits=facts.limits,
        is_virtual=facts.runtime in VIRTUAL_RUNTIMES,
    )
    return Run(
        path=path,
        facts=facts,
        status=status,
        baseline=baseline,
        notes=[*facts.notes, *notes],
        config_yaml=config.read_text() if config.is_file() else "",
        environment=_read(environment, dict[str, Any]) if environment.is_file() else {},
        manifests={system: _manifest(path, facts, system) for system in facts.systems if system in measured},
        served=served,
        compared=compared if validity.is_valid else [_without_outcomes(row) for row in compared],
        client=client,
        validity=validity,
    )


def _without_outcomes(row: Compared) -> Compared:
    """Whatever the ratios of an INVALID run are, they say nothing."""
    ratios = {system: replace(ratio, outcome=Outcome.UNDECIDED) for system, ratio in row.ratios.items()}
    return replace(row, ratios=ratios)


def _measure(path: Path, facts: Facts, is_complete: bool) -> tuple[list[Served], list[str]]:
    """Every serving that was recorded; in a partial run, notes on those that were not."""
    served: list[Served] = []
    for number, repeat in enumerate(facts.repeats):
        asked = _asked(path, facts, number, repeat)
        for place, slot in enumerate(repeat.slots):
            log = path / slot.folder / "events.jsonl"
            if log.is_file():
                with rarely_collected():
                    beside = Beside(asked=asked, machine=_machine(path / slot.folder))
                    result = measure(slot.system, read_events(log), facts.slo, beside)
                if result.accounting.submitted:
                    _check_same_requests(path, served, number, slot.folder, result)
                    is_first = all(one.result.system != slot.system for one in served)
                    served.append(Served(number, place, result if is_first else result.lean()))
                    continue
            if is_complete:
                raise ValueError(f"{path}: {slot.folder}/events.jsonl is missing or has no request")
    if not served:
        raise ValueError(f"{path}: no system was measured")
    measured = {one.result.system for one in served}
    missing = [system for system in facts.systems if system not in measured]
    if missing and is_complete:
        raise ValueError(f"{path}: {missing[0]} was not measured in any repeat")
    return served, [f"{system} was not measured: the run ended before its first request." for system in missing]


def _asked(path: Path, facts: Facts, number: int, repeat: RepeatFacts) -> Asked:
    file = path / "repeats" / str(number) / "requests.jsonl"
    if not file.is_file():
        raise ValueError(f"{file}: is missing; without it nobody knows what was asked")
    requests = read(file).requests
    rate_per_s, cv = (None, None) if facts.arrivals is None else (facts.arrivals.rate_per_s, facts.arrivals.cv)
    return Asked(requests=requests, concurrency=facts.concurrency, rate_per_s=rate_per_s, cv=cv)


def _machine(folder: Path) -> dict[str, Any]:
    """Nothing is known of a serving that was broken off."""
    found = folder / "slot.json"
    machine = _read(found, Slot).machine if found.is_file() else Machine(num_cores=1, other_cores=None)
    return {"num_cores": machine.num_cores, "other_cores": machine.other_cores}


def _check_same_requests(path: Path, served: Sequence[Served], repeat: int, folder: str, result: SystemResult) -> None:
    """Raises ValueError where a system was sent other requests than the first one of the repeat.

    Of a run that was broken off each has recorded those that had arrived.
    """
    first = next((one.result.requests for one in served if one.repeat == repeat), result.requests)
    own, other = (requests[ASKED] for requests in (result.requests, first))
    both = own.index.intersection(other.index)
    if not own.loc[both].equals(other.loc[both]):
        raise ValueError(f"{path / folder}: other requests than in the other slots of repeat {repeat}; incomparable")


def _manifest(path: Path, facts: Facts, system: str) -> Manifest:
    """Of its first serving. A system that did not get ready has none."""
    folders = [slot.folder for repeat in facts.repeats for slot in repeat.slots if slot.system == system]
    found = path / folders[0] / "manifest.json"
    return _read(found, Manifest) if found.is_file() else Manifest(instances={}, options={})


def _read(path: Path, kind: type[Parsed]) -> Parsed:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
