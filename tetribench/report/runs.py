"""From a run folder on disk to everything known about the run, measured."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tetribench.core.garbage import rarely_collected
from tetribench.metrics.compare import SystemResult, measure
from tetribench.metrics.log import read_columns
from tetribench.metrics.slo import Slo

SCHEMA_VERSION = 3
"""Of run.json."""

MAX_ABREAST = 3
"""So many systems fit beside each other as columns of a table of values and ratios."""

VIRTUAL_RUNTIMES = frozenset({"sim"})

Parsed = TypeVar("Parsed")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """status.json; `state` is one of running, complete, interrupted, failed."""

    state: str
    reason: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """run.json: what was asked."""

    schema_version: int
    name: str
    workload: str
    runtime: str
    seed: int
    systems: list[str]
    baseline: str
    command: str
    fingerprint: str
    num_requests: int
    num_cut: int
    slo: Slo
    created: datetime
    notes: list[str] = []


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json of one system: the facts of its instances by name, and its resolved options, flat."""

    instances: dict[str, dict[str, Any]]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. `baseline` and `notes` are those of `facts`, unless the run is partial and lacks a system."""

    path: Path
    facts: Facts
    status: Status
    baseline: str
    notes: list[str]
    config_yaml: str
    environment: dict[str, Any]
    manifests: dict[str, Manifest]
    results: list[SystemResult]

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
        return [result.system for result in self.results if result.system != self.baseline]

    @property
    def has_many_systems(self) -> bool:
        """More systems than can stand abreast."""
        return len(self.results) > MAX_ABREAST


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
    results, notes = _measure(path, facts, is_complete)
    measured = [result.system for result in results]
    baseline = facts.baseline
    if baseline not in measured:
        if is_complete:
            raise ValueError(f"{path}: baseline={baseline} is not among the systems of the run: {', '.join(measured)}")
        baseline = measured[0]
        notes.append(f"The baseline {facts.baseline} was not measured; ratios are to {baseline}.")
    config, environment = path / "config.yaml", path / "environment.json"
    return Run(
        path=path,
        facts=facts,
        status=status,
        baseline=baseline,
        notes=[*facts.notes, *notes],
        config_yaml=config.read_text() if config.is_file() else "",
        environment=_read(environment, dict[str, Any]) if environment.is_file() else {},
        manifests={system: _manifest(path / "systems" / system / "manifest.json") for system in measured},
        results=results,
    )


def _measure(path: Path, facts: Facts, is_complete: bool) -> tuple[list[SystemResult], list[str]]:
    """A result for each system; in a partial run, notes on those that have none."""
    results, notes = [], []
    for system in facts.systems:
        log = path / "systems" / system / "events.jsonl"
        if log.is_file():
            with rarely_collected():
                result = measure(system, read_columns(log), facts.slo)
            if result.accounting.submitted:
                results.append(result)
                continue
        if is_complete:
            raise ValueError(f"{path}: systems/{system}/events.jsonl is missing or has no request")
        notes.append(f"{system} was not measured: the run ended before its first request.")
    if not results:
        raise ValueError(f"{path}: no system was measured")
    return results, notes


def _manifest(path: Path) -> Manifest:
    """A system that did not get ready has none."""
    return _read(path, Manifest) if path.is_file() else Manifest(instances={}, options={})


def _read(path: Path, kind: type[Parsed]) -> Parsed:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
