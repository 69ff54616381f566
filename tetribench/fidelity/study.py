"""The experiment: real runs, their twins in virtual time, and replays of what the real runs decided."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from tetribench.calibrate.watch import MachineState, calibrated_in, is_quiet, quietest, watched
from tetribench.core.events import EventLog
from tetribench.drive.progress import progress
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.hardware import Hardware
from tetribench.experiment import Composed, Prepared, Setup, prepare, serve
from tetribench.fidelity.compare import compare
from tetribench.fidelity.errors import error_table, in_short, ratio_table, run_table, stage_table
from tetribench.fidelity.figure import FidelityFigure
from tetribench.fidelity.recording import Key, Recording, Recordings
from tetribench.fidelity.rehearsing import Rehearsing
from tetribench.instance.runtime import Runtime
from tetribench.report.terminal import frame_table
from tetribench.study.base import Study


class Redo(Enum):
    """Which of the real runs that are there already are measured again."""

    nothing = "nothing"
    disturbed = "disturbed"
    """Those during which the machine was not quiet."""
    everything = "everything"

    def asks_for(self, recording: Recording, known: Sequence[MachineState]) -> bool:
        return self is Redo.everything or (self is Redo.disturbed and not is_quiet(recording.machine, known))


class Fidelity(Study):
    """Every system with every one of `seeds`: on `engine` in `runtime`, and then in virtual time as composed.

    The requests of a seed are served to a system `servings` times, in as many rounds, since two real runs differ too;
    virtual time is compared with their mean. A round begins with a rehearsal of `rehearsal_s` seconds, on which the
    `local` hardware is fitted again; 0 takes the hardware as it is. Real runs are kept in `recordings`; `redo` says
    which are repeated of those that are there already. A run during which the machine was not quiet is measured again,
    at most `attempts` times in all; the quietest is kept.
    """

    def __init__(
        self,
        *,
        name: str,
        engine: EngineFactory,
        runtime: Runtime,
        out: str,
        recordings: str = "reports/runs/fidelity",
        seeds: list[int] | None = None,
        redo: Redo = Redo.nothing,
        servings: int = 5,
        attempts: int = 1,
        rehearsal_s: float = 40.0,
    ) -> None:
        super().__init__(name=name, figure=FidelityFigure(), out=out)
        self.engine = engine
        self.runtime = runtime
        self.recordings = Recordings(Path(recordings))
        self.seeds = list(range(5)) if seeds is None else seeds
        self.redo = redo
        self.servings = servings
        self.attempts = attempts
        self.rehearsal_s = rehearsal_s
        for option, number in {"servings": servings, "attempts": attempts}.items():
            if number < 1:
                raise ValueError(f"task.{option}={number}: must be at least 1")
        if rehearsal_s < 0.0:
            raise ValueError(f"task.rehearsal_s={rehearsal_s:g}: must not be negative")
        if len(set(self.seeds)) < 2:
            raise ValueError(f"task.seeds={self.seeds}: an interval needs at least 2 different seeds")

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        setups = {seed: composed.variant({"seed": seed}).setup() for seed in self.seeds}
        prepared = {seed: self._prepare(setup) for seed, setup in setups.items()}
        rehearsing = self._rehearsing(setups[self.seeds[0]]) if self.rehearsal_s else None
        recorded, rehearsals = self._recorded(setups, prepared, rehearsing, console)
        if rehearsing is not None:
            options = {"hardware.path": str(rehearsing.fit_again(rehearsals, console))}
            setups = {seed: composed.variant({"seed": seed, **options}).setup() for seed in self.seeds}
        return pd.DataFrame(
            [
                {**key._asdict(), **row}
                for key in sorted(recorded, key=lambda key: key.seed)
                for row in compare(setups[key.seed], prepared[key.seed].requests, recorded[key])
            ]
        )

    def _rehearsing(self, setup: Setup) -> Rehearsing:
        options = setup.resolved().options
        return Rehearsing(
            engine=self.engine,
            profile=_hardware(setup),
            made_of={"model": options["model"], "engine": options["task"]["engine"]},
            folder=self.recordings.folder,
            seconds=self.rehearsal_s,
        )

    def _recorded(
        self, setups: dict[int, Setup], prepared: dict[int, Prepared], rehearsing: Rehearsing | None, console: Console
    ) -> tuple[dict[Key, Recording], list[Recording]]:
        """Runs and rehearsals, from disk or measured now."""
        keys = list(self._keys(setups))
        made_of = {key: self._made_of(setups[key.seed], prepared[key.seed], key.system) for key in keys}
        found = {key: self.recordings.load(key, made_of[key]) for key in keys}
        known = [state for setup in setups.values() for state in calibrated_in(_hardware(setup))]
        known += [one.machine for one in found.values() if one is not None]
        recorded: dict[Key, Recording] = {}
        rehearsals: list[Recording] = []
        for serving, keys_of_round in groupby(keys, key=attrgetter("serving")):
            if rehearsing is not None:
                rehearsals += rehearsing.round(serving, self.redo is Redo.everything, console)
            for key in keys_of_round:
                there = found[key]
                if there is not None and not self.redo.asks_for(there, known):
                    console.print(f"{key}: recorded at {there.created}", highlight=False)
                    recorded[key] = there
                    continue
                already = [there] if there is not None and self.redo is Redo.disturbed else []
                measure = partial(self._measure, key, setups[key.seed], prepared[key.seed], console)
                best, num_attempts = quietest(measure, self.attempts, known, already)
                num_attempts += sum(one.num_attempts for one in already)
                if not is_quiet(best.machine, known):
                    console.print(f"{key}: not quiet in {num_attempts} attempts; the quietest is kept", highlight=False)
                recorded[key] = replace(best, num_attempts=num_attempts)
                self.recordings.save(recorded[key], made_of[key])
        return recorded, rehearsals

    def _keys(self, setups: dict[int, Setup]) -> Iterator[Key]:
        """In the order of measuring: what drifts, drifts for all alike."""
        for serving in range(self.servings):
            for number, (seed, setup) in enumerate(setups.items()):
                systems = list(setup.systems)
                for system in systems if (serving + number) % 2 == 0 else reversed(systems):
                    yield Key(seed, system, serving)

    def _prepare(self, setup: Setup) -> Prepared:
        """For the real runs. Raises ValueError where the two kinds of run could not be compared."""
        if not setup.runtime.is_virtual or self.runtime.is_virtual:
            raise ValueError("runtime and task.runtime: the first must be sim, the second inline or process")
        prepared = prepare(replace(setup, engine=self.engine, runtime=self.runtime))
        num_blocks, num_real_blocks = setup.engine.num_blocks(), prepared.engine.num_blocks()
        if num_blocks != num_real_blocks:
            raise ValueError(
                f"hardware.kv_memory_gib: virtual time has {num_blocks} KV blocks, real time {num_real_blocks}; must "
                f"be the same"
            )
        return prepared

    def _measure(self, key: Key, setup: Setup, prepared: Prepared, console: Console) -> Recording:
        real, log = replace(setup, engine=self.engine, runtime=self.runtime), EventLog()
        logs, num_requests = self.recordings.log_folder(key), len(prepared.requests.requests)
        with watched() as machine, progress(console, str(key), num_requests) as on_progress:
            serve(real, key.system, prepared, log, logs, lambda facts: None, on_progress)
        return Recording(key, log.events, machine, datetime.now(UTC).isoformat(timespec="seconds"))

    def _made_of(self, setup: Setup, prepared: Prepared, system: str) -> dict[str, Any]:
        """All options that the real run depends on, and its requests."""
        options = setup.resolved().options
        return {
            "system": options["system"][system.partition("#")[0]],
            "model": options["model"],
            "drive": options["drive"],
            "engine": options["task"]["engine"],
            "runtime": options["task"]["runtime"],
            "requests": prepared.requests.fingerprint(),
        }

    def execute(self, composed: Composed, console: Console) -> None:
        finding = self.find(composed, console)
        _, png = finding.write(Path(self.out))
        tables = {
            "errors": error_table(finding.rows),
            "stages": stage_table(finding.rows),
            "ratios": ratio_table(finding.rows),
            "runs": run_table(finding.rows),
        }
        for name, table in tables.items():
            table.to_csv(Path(self.out) / f"{self.name}_{name}.csv", index=False, float_format="%.6g")
        console.print(frame_table("Virtual time: errors in percent of what was measured", in_short(tables["errors"])))
        for sentence in finding.readings:
            console.print(sentence, highlight=False)
        console.print(f"{png}", soft_wrap=True)


def _hardware(setup: Setup) -> Hardware:
    assert isinstance(setup.engine, CostModelFactory), "virtual time has no other engine"
    return setup.engine.hardware
