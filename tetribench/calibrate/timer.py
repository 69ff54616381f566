"""What a step takes on an engine: asked of the cost model, or timed on real engines in processes as runs have them."""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tetribench.calibrate.steps import Step
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_model import CostModel
from tetribench.instance.child import cores_of
from tetribench.instance.launch import InstanceFailed

UNDISTURBED_SHARE = 0.95
"""On the CPU, a step that had less of its core than this shared it with another program."""

NUM_UNDISTURBED = 3
"""So many samples a median needs; where fewer were undisturbed, those that came next are taken."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One step timed: what it took, and how much of that time the process had its core (1 where nobody counts)."""

    seconds: float
    core_share: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one step: the median and the middle half of its undisturbed samples."""

    seconds: float
    low_s: float
    high_s: float
    num_samples: int
    num_disturbed: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Timing":
        ranked = sorted(samples, key=lambda sample: -sample.core_share)
        num_kept = max(sum(one.core_share >= UNDISTURBED_SHARE for one in ranked), NUM_UNDISTURBED)
        kept = [sample.seconds for sample in ranked[:num_kept]]
        low_s, _, high_s = quantiles(kept, n=4) if len(kept) > 1 else kept * 3
        return cls(median(kept), low_s, high_s, len(kept), len(samples) - len(kept))


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a measuring process is told. `cores` is empty where processes are not pinned."""

    engine: EngineFactory
    index: int
    cores: list[int]
    steps: list[Step]
    seconds: float
    on_device: list[Step]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measuring process answers: the samples of each step, the engine's facts, the speed of its copies."""

    samples: list[list[Sample]]
    facts: dict[str, Any]
    copy_bytes_per_s: float
    host_bytes_per_s: float
    copy_latency_s: float = 0.0
    device_s: dict[Step, float] = field(default_factory=dict)
    """How long the device was at work in a step, of those that were asked for; none where it has no clock."""


def predict_steps(cost: CostModel, steps: Sequence[Step]) -> list[Timing]:
    """Of the cost model, which has no spread."""
    return [Timing(seconds, seconds, seconds, 1, 0) for seconds in (cost.seconds(step.batch()) for step in steps)]


def time_steps(
    engine: EngineFactory,
    steps: Sequence[Step],
    *,
    num_busy: int,
    seconds: float,
    log_folder: Path,
    on_device: Sequence[Step] = (),
) -> tuple[list[Timing], Measured]:
    """Of `num_busy` copies of the engine that all measure at once, for `seconds`; and what the first of them said.

    Each copy is a process with the environment, the one thread and the cores of an instance of a run, so that they
    share the machine as its instances do. Each takes the steps in an order of its own, which changes from round to
    round: what happens to the machine meanwhile falls on all steps alike. Samples are pooled; on the CPU those are left
    out in which another program had the core, by the process's own count of its CPU time.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    available = sorted(os.sched_getaffinity(0))
    processes = []
    try:
        for index in range(num_busy):
            cores = cores_of(index, num_busy, available)
            processes.append(_start(log_folder / f"measure-{index}.log"))
            _tell(processes[-1], pickle.dumps(Assignment(engine, index, cores, list(steps), seconds, list(on_device))))
        for process in processes:
            _hear(process, log_folder)  # it is ready
        for process in processes:
            _tell(process, b"go\n")
        answers: list[Measured] = [_hear(process, log_folder) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    pooled = [[sample for answer in answers for sample in answer.samples[index]] for index in range(len(steps))]
    return [Timing.of(samples) for samples in pooled], answers[0]


def _start(log: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tetribench.calibrate.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )


def _tell(process: "subprocess.Popen[bytes]", message: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(message)
    process.stdin.flush()


def _hear(process: "subprocess.Popen[bytes]", log_folder: Path) -> Any:
    """The next object that a measuring process says. Raises InstanceFailed for one that ends instead."""
    assert process.stdout is not None
    try:
        return pickle.load(process.stdout)
    except EOFError:
        raise InstanceFailed(f"a measuring process ended with code {process.wait()}; see {log_folder}") from None
