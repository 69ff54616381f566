"""`task=marks`: how near the engine comes to what its device can do. On the CPU it is a rehearsal."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tetribench.calibrate.marks import DEVICE_IS_HOST, HOST_SHARE, Mark, handover, host_share, works
from tetribench.calibrate.measurable import measurable
from tetribench.calibrate.timer import time_steps
from tetribench.engine.base import EngineFactory
from tetribench.engine.hf.schema import HFEngine
from tetribench.experiment import Composed
from tetribench.provenance import environment


class Marks:
    """Time decode steps, prefill chunks and a KV copy of `engine` against floors that are measured just before.

    Writes marks.csv and marks.json to `out`. `seconds` is how long steps are timed, each at least three times.
    """

    def __init__(self, *, engine: EngineFactory, out: str = "reports/gpu/here", seconds: float = 20.0) -> None:
        if seconds <= 0:
            raise ValueError(f"task.seconds={seconds}: must be positive")
        self.engine = engine
        self.folder = Path(out)
        self.seconds = seconds

    def execute(self, composed: Composed, console: Console) -> None:
        engine = measurable("marks", self.engine).sized(1)
        marks, facts = self._measure(engine)
        self._write(engine, marks, facts)
        console.print(_table(marks))
        console.print(f"{facts['engine']['attention']} on {facts['engine']['device']}, {engine.model.name}")
        console.print(f"{self.folder / 'marks.csv'}", soft_wrap=True)

    def _measure(self, engine: HFEngine) -> tuple[list[Mark], dict[str, Any]]:
        from tetribench.engine.hf.floors import measure_floors

        floors = measure_floors(engine)
        speeds = floors.memory_bytes_per_s, floors.flops_per_s
        bytes_per_value, shape = engine.resolved_dtype().num_bytes, engine.model.shape()
        asked = works(engine.model, bytes_per_value)
        reasons = [one.why_not(engine.num_blocks(), engine.block_size, shape.max_context_tokens) for one in asked]
        steps = [one.step for one, reason in zip(asked, reasons, strict=True) if reason is None]
        if not steps:
            raise ValueError(f"task=marks: model={engine.model.name} can run no step of the table: {reasons[0]}")
        decodes = [step for step in steps if step.contexts]
        timings, measured = time_steps(
            engine, steps, num_busy=1, seconds=self.seconds, log_folder=self.folder / "logs", on_device=decodes
        )
        seconds = iter([timing.seconds for timing in timings])
        marks = [
            one.mark(next(seconds), *speeds) if reason is None else Mark(what=one.what, remark=reason)
            for one, reason in zip(asked, reasons, strict=True)
        ]
        moved = handover(
            engine.model, bytes_per_value, engine.block_size, measured.copy_bytes_per_s, floors.memory_bytes_per_s
        )
        by_step = dict(zip(steps, [timing.seconds for timing in timings], strict=True))
        outside = [host_share(step, by_step[step], device_s) for step, device_s in measured.device_s.items()]
        outside = outside or [Mark(what=HOST_SHARE, remark=DEVICE_IS_HOST)]
        return [*marks, moved, *outside], {"floors": asdict(floors), "engine": measured.facts}

    def _write(self, engine: HFEngine, marks: list[Mark], facts: dict[str, Any]) -> None:
        rows = [mark.as_row() for mark in marks]
        with (self.folder / "marks.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        written = {"model": engine.model.name, **facts, "marks": rows, "environment": environment()}
        (self.folder / "marks.json").write_text(json.dumps(written, indent=1) + "\n")


def _table(marks: list[Mark]) -> Table:
    table = Table(title="The engine against what its device can do")
    for column in ("what", "ms", "floor ms", "ratio", "mark", ""):
        table.add_column(column)
    words = {True: "met", False: "not met", None: ""}
    for mark in marks:
        numbers = (_number(mark.seconds, 1e3), _number(mark.floor_s, 1e3), _number(mark.ratio), _number(mark.at_most))
        table.add_row(mark.what, *numbers, words[mark.is_met] or mark.remark)
    return table


def _number(value: float | None, scale: float = 1.0) -> str:
    return "" if value is None else f"{value * scale:.3g}"
