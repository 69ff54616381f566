"""The small files of a run folder, as they are on disk."""

from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tetribench.metrics.limits import Limits
from tetribench.metrics.price import Price
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo

SCHEMA_VERSION = 4
"""Of run.json."""

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
    cost: Price = Price()
    created: datetime
    passport: dict[str, Any] = {}
    overrides: list[str] = []
    repeats: list[RepeatFacts]
    notes: list[str] = []

    @property
    def is_virtual(self) -> bool:
        return self.runtime in VIRTUAL_RUNTIMES

    @property
    def time_kind(self) -> str:
        """What the run's seconds are, in words."""
        return "virtual time (cost model)" if self.is_virtual else f"real time ({self.runtime})"


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


def read_facts(path: Path) -> Facts:
    """run.json of the run at `path`. Raises ValueError where there is none, or one of another schema version."""
    if not (path / "run.json").is_file():
        raise ValueError(f"{path}: not a run folder (it has no run.json)")
    version = read_json(path / "run.json", dict[str, Any]).get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: run.json has schema version {version}, this program reads {SCHEMA_VERSION}")
    return read_json(path / "run.json", Facts)


def read_json(path: Path, kind: type[Parsed]) -> Parsed:
    """Raises ValueError, in one line, where the file is damaged or holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
