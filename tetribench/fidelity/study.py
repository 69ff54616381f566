"""The experiment: real runs, their twins in virtual time, and replays of what the real runs decided."""

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from tetribench.core.events import EventLog
from tetribench.drive.progress import progress
from tetribench.engine.base import EngineFactory
from tetribench.experiment import Composed, Prepared, Setup, prepare, serve
from tetribench.fidelity.compare import compare
from tetribench.fidelity.errors import error_table, in_short, ratio_table, run_table, stage_table
from tetribench.fidelity.figure import FidelityFigure
from tetribench.fidelity.machine import watched
from tetribench.fidelity.recording import Recording, Recordings
from tetribench.instance.runtime import Runtime
from tetribench.report.terminal import frame_table
from tetribench.study.base import Study


class Redo(Enum):
    """Which of the real runs that are there already are measured again."""

    nothing = "nothing"
    disturbed = "disturbed"
    """Those during which other programs worked."""
    everything = "everything"

    def asks_for(self, recording: Recording) -> bool:
        return self is Redo.everything or (self is Redo.disturbed and recording.machine.is_disturbed)


class Fidelity(Study):
    """Every system with every one of `seeds`: on `engine` in `runtime`, and then in virtual time as composed.

    Real runs are kept in `recordings`; `redo` says which are repeated of those that are there already.
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
    ) -> None:
        super().__init__(name=name, figure=FidelityFigure(), out=out)
        self.engine = engine
        self.runtime = runtime
        self.recordings = Recordings(Path(recordings))
        self.seeds = list(range(5)) if seeds is None else seeds
        self.redo = redo
        if len(set(self.seeds)) < 2:
            raise ValueError(f"task.seeds={self.seeds}: an interval needs at least 2 different seeds")

    def rows(self, composed: Composed, console: Console) -> pd.DataFrame:
        setups = {seed: composed.variant({"seed": seed}).setup() for seed in self.seeds}
        prepared = {seed: self._prepare(setup) for seed, setup in setups.items()}
        recorded: dict[tuple[int, str], Recording] = {}
        for number, (seed, setup) in enumerate(setups.items()):
            systems = list(setup.systems)
            for system in systems if number % 2 == 0 else reversed(systems):  # what drifts, drifts for all alike
                recorded[seed, system] = self._record(setup, prepared[seed], system, console)
        return pd.DataFrame(
            [
                {"seed": seed, "system": system, **row}
                for seed, setup in setups.items()
                for system in setup.systems
                for row in compare(setup, prepared[seed].requests, recorded[seed, system])
            ]
        )

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

    def _record(self, setup: Setup, prepared: Prepared, system: str, console: Console) -> Recording:
        what = self._made_of(setup, prepared, system)
        found = self.recordings.load(system, setup.seed, what)
        title = f"{system}, seed {setup.seed}"
        if found is not None and not self.redo.asks_for(found):
            console.print(f"{title}: recorded at {found.created}", highlight=False)
            return found
        real, log = replace(setup, engine=self.engine, runtime=self.runtime), EventLog()
        with watched() as machine, progress(console, title, len(prepared.requests.requests)) as on_progress:
            logs = self.recordings.log_folder(system, setup.seed)
            serve(real, system, prepared, log, logs, lambda facts: None, on_progress)
        return self.recordings.save(system, setup.seed, what, log.events, machine)

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
