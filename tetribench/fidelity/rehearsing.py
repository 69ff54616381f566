"""The machine's speed while the real runs were measured: a rehearsal in every round of them.

A shared machine is faster in one minute than in the next, by more than the cost model is wrong. A profile that was
measured before the runs is of other minutes; one that is fitted again on rehearsals between the runs is of theirs. What
is rehearsed are random requests, never those of the experiment.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tetribench.calibrate.local import fit_rehearsed
from tetribench.calibrate.rehearsal import Rehearsal, rehearsed_systems, serve_for
from tetribench.engine.base import EngineFactory
from tetribench.engine.hardware import Hardware
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.local_profile import LocalProfile
from tetribench.fidelity.recording import Key, Recording, Recordings
from tetribench.prefill.chunk import DEFAULT_CHUNK_SIZE


class Rehearsing:
    """Rehearses `engine` for `seconds` a round, as `profile` was, and keeps the records in `folder`, each good for the
    options in `made_of`."""

    def __init__(
        self, *, engine: EngineFactory, profile: Hardware, made_of: dict[str, Any], folder: Path, seconds: float
    ) -> None:
        if not isinstance(engine, HFEngine) or not isinstance(profile, LocalProfile):
            raise ValueError(
                f"task.rehearsal_s={seconds:g}: rehearsals are of task.engine=hf, and hardware=local is what is fitted "
                "again; 0 takes any hardware as it is"
            )
        self._engine = engine.sized(profile.num_busy)
        self._profile = profile
        self._folder = folder
        self._recordings = Recordings(folder / "rehearsals")
        self._seconds = seconds
        self._made_of = {**made_of, "num_instances": profile.num_busy, "seconds": seconds}

    def round(self, number: int, is_anew: bool, console: Console) -> list[Recording]:
        """One of each system, with requests drawn for this round: those on disk, unless `is_anew`, or measured now."""
        systems = rehearsed_systems(self._profile.num_busy, self._profile.chunk_size or DEFAULT_CHUNK_SIZE)
        found = []
        for name, system in systems.items():
            key, seconds = Key(number, name, 0), self._seconds / len(systems)
            recording = None if is_anew else self._recordings.load(key, self._made_of)
            if recording is None:
                console.print(f"rehearsing {name} for {seconds:g} s", highlight=False)
                created, logs = datetime.now(UTC).isoformat(timespec="seconds"), self._recordings.log_folder(key)
                events, machine = serve_for(system, self._engine, seconds, logs, seed=number)
                recording = Recording(key, events, machine, created)
                self._recordings.save(recording, self._made_of)
            found.append(recording)
        return found

    def fit_again(self, recordings: Sequence[Recording], console: Console) -> Path:
        """A profile beside the records; the engine's rates by itself are those of the old one."""
        rehearsals = [Rehearsal.of(one.key.system, one.events, one.machine) for one in recordings]
        constants, residuals = fit_rehearsed(self._engine.model, self._profile.engine_by_itself, rehearsals)
        errors = sorted(abs(one.error) for one in residuals)
        console.print(
            f"hardware fitted again on {len(rehearsals)} rehearsals between the runs: {len(errors)} points, median "
            f"error {errors[len(errors) // 2]:.1%}",
            highlight=False,
        )
        profile = json.loads(self._profile.path.read_text())
        machines = {f"{one.key.system}, round {one.key.seed}": asdict(one.machine) for one in recordings}
        path = self._folder / "profile.json"
        path.write_text(json.dumps({**profile, "constants": constants, "machine": machines}, indent=1) + "\n")
        return path
