"""`task=calibrate` and `task=fit`: constants of this machine, measured; constants of a published profile, once more."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from tetribench.calibrate.grid import grid
from tetribench.calibrate.knee import ENOUGH, SMALLEST_CHUNK, Knee, chunk_sizes, find_knee
from tetribench.calibrate.local import LocalFit, fit_local
from tetribench.calibrate.measurable import measurable
from tetribench.calibrate.profiles import PROFILES
from tetribench.calibrate.rehearsal import rehearse
from tetribench.calibrate.steps import Step
from tetribench.calibrate.tables import summary, write_residuals
from tetribench.calibrate.timer import Timing, time_steps
from tetribench.calibrate.watch import MachineState, is_quiet, watched
from tetribench.engine.base import EngineFactory
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.local_profile import PROFILE_FORMAT
from tetribench.experiment import Composed
from tetribench.provenance import environment


class Calibrate:
    """Measure `engine` on this machine and write `out`/profile.json, which `hardware=local` reads.

    `num_busy` copies of the engine work at once, as many as the instances of the runs that will be predicted: they
    share the machine's memory and cores. `seconds` is how long the grid of steps is measured, up to
    `max_prefill_tokens` an iteration and `max_sequences` decoding sequences, and then how long runs are rehearsed. A
    rehearsal during which the machine was not quiet is repeated, at most `attempts` times in all.

    With the grid, single prompts of up to `max_chunk_tokens` are timed: the profile's ChunkSize is where their
    throughput stops growing. The constants are not fitted on them.
    """

    def __init__(
        self,
        *,
        engine: EngineFactory,
        out: str = "reports/local",
        num_busy: int = 2,
        seconds: float = 60.0,
        max_prefill_tokens: int = 1024,
        max_sequences: int = 64,
        max_chunk_tokens: int = 2048,
        attempts: int = 3,
    ) -> None:
        if num_busy < 1:
            raise ValueError(f"task.num_busy={num_busy}: must be at least 1")
        if seconds <= 0:
            raise ValueError(f"task.seconds={seconds}: must be positive")
        if max_prefill_tokens < 128 or max_sequences < 4:
            raise ValueError(
                f"task.max_prefill_tokens={max_prefill_tokens}, task.max_sequences={max_sequences}: must be at least "
                "128 and 4, or there is too little to fit"
            )
        if max_chunk_tokens < 4 * SMALLEST_CHUNK:
            raise ValueError(
                f"task.max_chunk_tokens={max_chunk_tokens}: must be at least {4 * SMALLEST_CHUNK}, or there is no curve"
            )
        if attempts < 1:
            raise ValueError(f"task.attempts={attempts}: must be at least 1")
        self.engine = engine
        self.out = Path(out)
        self.num_busy = num_busy
        self.seconds = seconds
        self.max_prefill_tokens = max_prefill_tokens
        self.max_sequences = max_sequences
        self.max_chunk_tokens = max_chunk_tokens
        self.attempts = attempts

    def execute(self, composed: Composed, console: Console) -> None:
        engine = measurable("calibrate", self.engine).sized(self.num_busy)
        steps, chunks = self._steps(engine), self._chunks(engine)
        every = list(dict.fromkeys([*steps, *chunks.values()]))  # some of the chunks are in the grid
        console.print(f"timing {len(every)} steps on {self.num_busy} engines for {self.seconds:g} s")
        logs = self.out / "logs"
        with watched() as in_grid:
            timed, measured = time_steps(engine, every, num_busy=self.num_busy, seconds=self.seconds, log_folder=logs)
        found_timings = dict(zip(every, timed, strict=True))
        timings = [found_timings[step] for step in steps]
        sweep = {size: found_timings[step] for size, step in chunks.items()}
        knee = find_knee({size: timing.seconds for size, timing in sweep.items()})
        console.print(_in_words(knee), highlight=False)
        console.print(f"rehearsing whole runs for {self.seconds:g} s")
        known = [in_grid]
        rehearsals = rehearse(
            engine,
            num_instances=self.num_busy,
            chunk_size=knee.chunk_size,
            seconds=self.seconds,
            log_folder=logs,
            max_attempts=self.attempts,
            known=known,
        )
        machines = {"grid": in_grid, **{one.name: one.machine for one in rehearsals}}
        found = fit_local(engine.model, steps, timings, measured, rehearsals)
        self._write(engine, found, steps, timings, machines, _chunk(knee, sweep))
        self._draw(engine, found, sweep, knee)
        num_disturbed = sum(timing.num_disturbed for timing in timed)
        num_samples = num_disturbed + sum(timing.num_samples for timing in timed)
        for line in summary(found.residuals):
            console.print(line)
        console.print(f"{num_disturbed / num_samples:.0%} of {num_samples} timed steps left out: disturbed by others")
        disturbed = [name for name, state in machines.items() if not is_quiet(state, known)]
        if disturbed:
            console.print(
                f"the machine was not quiet during: {', '.join(disturbed)}; the constants may be too slow; measure "
                "again when it is",
                soft_wrap=True,
            )
        console.print(f"{self.out / 'profile.json'}", soft_wrap=True)

    def _steps(self, engine: HFEngine) -> list[Step]:
        return grid(
            max_prefill_tokens=self.max_prefill_tokens,
            max_sequences=self.max_sequences,
            max_context_tokens=engine.model.shape().max_context_tokens - 1,
            num_blocks=engine.num_blocks(),
            block_size=engine.block_size,
        )

    def _chunks(self, engine: HFEngine) -> dict[int, Step]:
        """By their tokens, whole prompts as far as the model's context and the KV memory hold them."""
        num_held = engine.num_blocks() * engine.block_size
        most = min(self.max_chunk_tokens, engine.model.shape().max_context_tokens, num_held)
        return {size: Step(((0, size),)) for size in chunk_sizes(most)}

    def _write(
        self,
        engine: HFEngine,
        found: LocalFit,
        steps: list[Step],
        timings: list[Timing],
        machines: dict[str, MachineState],
        chunk: dict[str, Any],
    ) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        profile = {
            "format": PROFILE_FORMAT,
            "model": engine.model.name,
            "num_busy": self.num_busy,
            "machine": {name: asdict(state) for name, state in machines.items()},
            "constants": found.constants,
            "engine_by_itself": found.engine,
            "chunk": chunk,
            "steps": [_measured_step(step, timing) for step, timing in zip(steps, timings, strict=True)],
            "environment": environment(),
        }
        (self.out / "profile.json").write_text(json.dumps(profile, indent=1) + "\n")
        write_residuals(found.residuals, self.out / "residuals.csv")

    def _draw(self, engine: HFEngine, found: LocalFit, sweep: dict[int, Timing], knee: Knee) -> None:
        from tetribench.calibrate.figure import draw_residuals, draw_sweep
        from tetribench.report.style import drawing, save

        with drawing():
            title = f"The cost model against {engine.model.name} on this machine"
            subtitle = f"{self.num_busy} engines at once: steps by themselves, and iterations of rehearsed runs"
            save(draw_residuals(found.residuals, title, subtitle), self.out, "residuals")
            title = f"Where prefill of {engine.model.name} stops growing on this machine"
            subtitle = f"Single prompts, {self.num_busy} engines at once; the middle half of the samples is shaded"
            save(draw_sweep(sweep, knee, title, subtitle), self.out, "chunk_size")


def _in_words(knee: Knee) -> str:
    if knee.is_inside:
        return (
            f"ChunkSize {knee.chunk_size}: {ENOUGH:.0%} of the best throughput, {knee.best_tokens_per_s:,.0f} tokens/s"
        )
    return (
        f"ChunkSize {knee.chunk_size}, the largest that was timed: throughput still grows there; "
        "a larger task.max_chunk_tokens may find more, as far as the model's context goes"
    )


def _chunk(knee: Knee, sweep: dict[int, Timing]) -> dict[str, Any]:
    timed = [{"num_tokens": size, "tokens_per_s": size / one.seconds, **asdict(one)} for size, one in sweep.items()]
    return {**asdict(knee), "enough": ENOUGH, "sweep": timed}


def _measured_step(step: Step, timing: Timing) -> dict[str, Any]:
    return {
        "chunks": step.chunks,
        "contexts": step.contexts[:1],
        "num_decodes": len(step.contexts),
        "median_s": timing.seconds,
        "quartiles_s": [timing.low_s, timing.high_s],
        "num_samples": timing.num_samples,
        "num_disturbed": timing.num_disturbed,
    }


class Fit:
    """Fit the hardware profile `profile` again, from the paper's points or the public measurements under `data`.

    Writes `out`/`profile`.csv, every point with its error, and prints the constants, as conf/hardware has them.
    """

    def __init__(self, *, profile: str, data: str = "../shared/data", out: str = "reports/fit") -> None:
        if profile not in PROFILES:
            raise ValueError(f"task.profile={profile}: must be one of {', '.join(PROFILES)}")
        self.profile = profile
        self.data = Path(data)
        self.out = Path(out)

    def execute(self, composed: Composed, console: Console) -> None:
        constants, found = PROFILES[self.profile](self.data)
        write_residuals(found, self.out / f"{self.profile}.csv")
        for name, value in constants.items():
            console.print(f"{name}: {value}", soft_wrap=True)
        for line in summary(found):
            console.print(line)
        console.print(f"{self.out / self.profile}.csv", soft_wrap=True)
