"""Real runs on disk, one serving of a system and seed each: measuring takes minutes, and goes on where it was broken
off."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from tetribench.calibrate.watch import MachineState
from tetribench.core.events import Event
from tetribench.metrics.log import encode_event, read_events


class Key(NamedTuple):
    """Which real run: the same requests are served to the same system several times."""

    seed: int
    system: str
    serving: int

    def __str__(self) -> str:
        return f"{self.system}, seed {self.seed}, serving {self.serving}"

    @property
    def file_name(self) -> str:
        return f"{self.system}-{self.seed}-{self.serving}"


@dataclass(frozen=True, slots=True)
class Recording:
    """One real run, the quietest of `num_attempts`, and what is known of the machine meanwhile."""

    key: Key
    events: list[Event]
    machine: MachineState
    created: str
    num_attempts: int = 1


class Recordings:
    """Those in `folder`. One counts as there only when it is whole and was made of the same `what`: the options of the
    run and its requests. Code is not compared, so a recording says when it was made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: Key, what: Mapping[str, Any]) -> Recording | None:
        facts_path = self._facts(key)
        if not facts_path.exists():
            return None
        facts = json.loads(facts_path.read_text())
        if facts["made_of"] != _digest(what):
            return None
        events = read_events(self._events(key))
        machine = MachineState(**facts["machine"])
        return Recording(key, events, machine, facts["created"], facts["num_attempts"])

    def save(self, recording: Recording, what: Mapping[str, Any]) -> None:
        """The facts come last, so that one that is there is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._facts(recording.key).unlink(missing_ok=True)
        self._events(recording.key).write_bytes(b"".join(map(encode_event, recording.events)))
        facts = {
            "made_of": _digest(what),
            "created": recording.created,
            "num_attempts": recording.num_attempts,
            "machine": asdict(recording.machine),
        }
        self._facts(recording.key).write_text(json.dumps(facts, indent=1) + "\n")

    def log_folder(self, key: Key) -> Path:
        """Where the processes of a run print to."""
        return self.folder / "logs" / key.file_name

    def _facts(self, key: Key) -> Path:
        return self.folder / f"{key.file_name}.json"

    def _events(self, key: Key) -> Path:
        return self.folder / f"{key.file_name}.events.jsonl"


def _digest(what: Mapping[str, Any]) -> str:
    return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
