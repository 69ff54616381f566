"""`task=gpu_bench`: all that a machine with a GPU can say, in one command of bounded time. On the CPU a rehearsal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import which
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table

from tetribench.calibrate.marks import VLLM_MARK, Mark
from tetribench.calibrate.measurable import measurable
from tetribench.calibrate.parts import Outcome, Part, State, limit_of, run_part
from tetribench.engine.base import EngineFactory
from tetribench.engine.hf.schema import HFEngine
from tetribench.experiment import Composed
from tetribench.provenance import environment

WORKLOADS = ("mixed", "lpld", "lphd", "hpld", "hphd")
"""The one that says most first: later ones may be cut."""
SYSTEMS = "[tetri,sarathi_like,vllm_like]"
ON_ONE_GPU = (
    "system.tetri.sharing=time_slicing",
    "system.sarathi_like.num_instances=1",
    "system.vllm_like.num_instances=1",
)
DEFAULT_MODEL = "opt_tiny"
"""That of the primary configuration, where experiments have another."""
OWN_OPTIONS = ("task", "out=", "name=", "hydra", "+experiment", "+workload")


class GpuBench:
    """Marks, a profile with ChunkSize, figures 2 to 5, five workloads on three systems, and the fidelity experiment.

    All go to `out`/`name`, within `budget_s`: each part is a command of its own, which is cut at its share of the time
    that is left, and one that fails takes nothing from the others. Where there is one GPU, each system has it in turn:
    a prefill and a decode instance share it, of colocated instances there is one. Workloads have `num_requests`;
    `seconds` is how long the steps of a part are timed. `vllm_python` is an interpreter that has vLLM, for the row that
    compares with it.
    """

    def __init__(
        self,
        *,
        engine: EngineFactory,
        out: str = "reports/gpu",
        name: str = "here",
        budget_s: float = 540.0,
        seconds: float = 10.0,
        num_requests: int = 64,
        vllm_python: str | None = None,
    ) -> None:
        for option, value in {"budget_s": budget_s, "seconds": seconds, "num_requests": num_requests}.items():
            if value <= 0:
                raise ValueError(f"task.{option}={value}: must be positive")
        if not name or Path(name).name != name:
            raise ValueError(f"task.name={name}: must be the name of a folder, without slashes")
        if vllm_python is not None and which(vllm_python) is None:
            raise ValueError(
                f"task.vllm_python={vllm_python}: there is no such program; must be a Python that has vLLM"
            )
        self.engine = engine
        self.folder = Path(out) / name
        self.budget_s = budget_s
        self.seconds = seconds
        self.num_requests = num_requests
        self.vllm_python = vllm_python

    def execute(self, composed: Composed, console: Console) -> None:
        engine = measurable("gpu_bench", self.engine)
        num_devices, num_sharing = (1, 2) if engine.num_gpus == 1 else (2, 1)
        engine.sized(num_devices, num_sharing)  # what cannot work is refused before the first part
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        ends_s, parts, outcomes = monotonic() + self.budget_s, self.parts(composed.overrides()), list[Outcome]()
        for index, part in enumerate(parts):
            limit_s = limit_of(parts[index:], ends_s - monotonic())
            console.print(f"{part.name}: at most {limit_s:.0f} s", highlight=False)
            outcomes.append(run_part(part, limit_s, self.folder / "logs" / f"{part.name}.log"))
            self._write(outcomes)  # each time: what ends the bench ends it with what there is
        console.print(_table(outcomes))
        console.print(f"{self.folder / 'summary.json'}", soft_wrap=True)

    def parts(self, overrides: Sequence[str]) -> list[Part]:
        """In the order of running; `overrides` are the user's, which every part gets that it can have."""
        passed = tuple(one for one in overrides if not one.startswith(OWN_OPTIONS))
        if not any(one.startswith("model=") for one in passed):
            passed = (*passed, f"model={DEFAULT_MODEL}")
        # in the fidelity experiment the real engine has another place
        moved = tuple(f"task.{one}" if one.startswith("engine.") else one for one in passed)
        profile = self.folder / "profile" / "profile.json"
        local = ("hardware=local", f"hardware.path={profile}")
        timed = f"task.seconds={self.seconds}"
        has_one_gpu = isinstance(self.engine, HFEngine) and self.engine.num_gpus == 1
        on_one, by_itself = (ON_ONE_GPU, ("task.num_busy=1",)) if has_one_gpu else ((), ())
        parts = [
            Part(name="marks", weight=80, arguments=("task=marks", f"task.out={self.folder}", timed, *passed)),
            Part(
                name="profile",
                weight=150,
                arguments=(
                    "task=calibrate",
                    f"task.out={profile.parent}",
                    timed,
                    "task.attempts=1",
                    *by_itself,
                    *passed,
                ),
            ),
        ]
        for figure in ("fig02", "fig03", "fig04", "fig05"):
            drawn = (f"+experiment={figure}", "runtime=process", "engine=hf", timed, f"out={self.folder / 'figures'}")
            parts.append(Part(name=figure, weight=25, arguments=(*drawn, *passed)))
        for workload in WORKLOADS:
            served = (*self._run(workload, "runs"), f"systems={SYSTEMS}", *on_one, *passed)
            parts.append(Part(name=workload, weight=40, arguments=served, prefers=profile, preferred=local))
        fidelity = ("+experiment=fidelity", f"out={self.folder / 'fidelity'}", local[1], "task.seeds=[0,1]")
        fewer = (f"workload.num_requests={self.num_requests}", "task.servings=1", "task.rehearsal_s=0")
        kept = f"task.recordings={self.folder / 'runs' / 'fidelity'}"
        parts.append(
            Part(name="fidelity", weight=90, arguments=(*fidelity, *fewer, kept, *on_one, *moved), needs=profile),
        )
        if self.vllm_python is not None:
            alone = [f"system.{system}.num_instances=1" for system in ("vllm_like", "vllm_server")]
            beside = (*self._run("mixed", "vllm"), "systems=[vllm_like,vllm_server]", *alone)
            python = f"system.vllm_server.python={self.vllm_python}"
            parts.append(Part(name="vllm", weight=90, arguments=(*beside, python, *passed)))
        return parts

    def _run(self, workload: str, folder: str) -> tuple[str, ...]:
        """Served once; the machine is not judged, as that takes time that the device would stand still."""
        once = (f"workload.num_requests={self.num_requests}", "aa_band=false", "validity=any_machine", "progress=false")
        return (f"+workload={workload}", *once, f"out={self.folder / folder}")

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        parts = [asdict(one) | {"state": one.state.value} for one in outcomes]
        written = {"budget_s": self.budget_s, "parts": parts, "environment": environment()}
        written["throughput_against_vllm"] = self._against_vllm().as_row()
        (self.folder / "summary.json").write_text(json.dumps(written, indent=1) + "\n")

    def _against_vllm(self) -> Mark:
        """Output tokens a second of our system over those of vLLM itself, on one instance of each."""
        what = "throughput of vllm_like against vLLM"
        if self.vllm_python is None:
            return Mark(what=what, remark="not run: task.vllm_python names no interpreter that has vLLM")
        found = sorted((self.folder / "vllm").glob("*/metrics.json"))
        if not found:
            return Mark(what=what, remark="not run to its end; see the part vllm")
        ours, theirs = (_throughput(json.loads(found[-1].read_text()), name) for name in ("vllm_like", "vllm_server"))
        return Mark(
            what=what, seconds=1.0 / ours, floor_s=1.0 / theirs, at_most=1.0 / VLLM_MARK, remark="s for a token"
        )


def _throughput(metrics: dict[str, Any], system: str) -> float:
    (row,) = (one for one in metrics["comparison"] if one["metric"] == "output_throughput_tokens_per_s")
    return float(row["values"][system])


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="What the bench has")
    for column in ("part", "", "s", "of at most", "why"):
        table.add_column(column)
    for one in outcomes:
        numbers = ("", "") if one.state is State.left_out else (f"{one.seconds:.0f}", f"{one.limit_s:.0f}")
        table.add_row(one.name, one.state.value, *numbers, one.reason)
    return table
