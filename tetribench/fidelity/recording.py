"""Real runs on disk, one system and seed each: measuring takes minutes, and goes on where it was broken off."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from tetribench.core.events import Event
from tetribench.fidelity.machine import MachineState
from tetribench.metrics.log import encode_event, read_events


@dataclass(frozen=True, slots=True)
class Recording:
    """One real run of `system`, and what is known of the machine meanwhile."""

    system: str
    seed: int
    events: list[Event]
    machine: MachineState
    created: str


class Recordings:
    """Those in `folder`. One counts as there only when it is whole and was made of the same `what`: the options of the
    run and its requests. Code is not compared, so a recording says when it was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, system: str, seed: int, what: Mapping[str, Any]) -> Recording | None:
        facts_path = self._facts(system, seed)
        if not facts_path.exists():
            return None
        facts = json.loads(facts_path.read_text())
        if facts["made_of"] != _digest(what):
            return None
        events = read_events(self._events(system, seed))
        return Recording(system, seed, events, MachineState(**facts["machine"]), facts["created"])

    def save(
        self, system: str, seed: int, what: Mapping[str, Any], events: list[Event], machine: MachineState
    ) -> Recording:
        """The facts come last, so that one that is there is whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._facts(system, seed).unlink(missing_ok=True)
        self._events(system, seed).write_bytes(b"".join(map(encode_event, events)))
        created = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"made_of": _digest(what), "created": created, "machine": asdict(machine)}
        self._facts(system, seed).write_text(json.dumps(facts, indent=1) + "\n")
        return Recording(system, seed, events, machine, created)

    def log_folder(self, system: str, seed: int) -> Path:
        """Where the processes of a run print to."""
        return self._folder / "logs" / f"{system}-{seed}"

    def _facts(self, system: str, seed: int) -> Path:
        return self._folder / f"{system}-{seed}.json"

    def _events(self, system: str, seed: int) -> Path:
        return self._folder / f"{system}-{seed}.events.jsonl"


def _digest(what: Mapping[str, Any]) -> str:
    return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
