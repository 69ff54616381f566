"""A process that times steps on an engine: `python -m tetribench.calibrate.worker`, its `Assignment` on stdin."""

import os
import pickle
import random
import sys
import time
from typing import BinaryIO

from tetribench.calibrate.copies import copy_bytes_per_s, copy_latency_s, host_bytes_per_s
from tetribench.calibrate.steps import Step
from tetribench.calibrate.timer import Assignment, Measured, Sample
from tetribench.core.clock import WallClock, run_real
from tetribench.engine.base import Engine

NUM_ROUNDS = 3
"""At the least, so that there is a median."""

NUM_PROFILED = 10
"""Iterations in which the device's own time is taken."""


def main() -> None:
    told: Assignment = pickle.load(sys.stdin.buffer)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to the log, not between the answers
    if told.cores:
        os.sched_setaffinity(0, told.cores)
    run_real(_measure(told, answers))


async def _measure(told: Assignment, answers: BinaryIO) -> None:
    clock = WallClock()
    engine = told.engine.build(clock, told.index)
    for step in told.steps:
        await _sample(engine, clock, step)  # first calls load kernels and touch memory
    _say(answers, "ready")
    sys.stdin.buffer.readline()
    samples: list[list[Sample]] = [[] for _ in told.steps]
    order, shuffle = list(range(len(told.steps))), random.Random(told.index).shuffle
    started_s, num_rounds = clock.now(), 0
    while num_rounds < NUM_ROUNDS or clock.now() - started_s < told.seconds:
        shuffle(order)
        for index in order:
            samples[index].append(await _sample(engine, clock, told.steps[index]))
        num_rounds += 1
    speeds = copy_bytes_per_s(engine, clock), host_bytes_per_s(engine, clock), await copy_latency_s(engine, clock)
    device_s = {step: await _device_seconds(engine, step) for step in told.on_device if engine.info.device != "cpu"}
    _say(answers, Measured(samples, engine.info.as_dict(), *speeds, device_s))
    engine.close()


async def _sample(engine: Engine, clock: WallClock, step: Step) -> Sample:
    """As the instance loop times an iteration."""
    batch = step.batch(engine.info.block_size)
    started_s, cpu_started_s = clock.now(), time.process_time()
    await engine.run(batch)
    seconds, cpu_s = clock.now() - started_s, time.process_time() - cpu_started_s
    return Sample(seconds, cpu_s / seconds if engine.info.device == "cpu" else 1.0)


async def _device_seconds(engine: Engine, step: Step) -> float:
    """Of one iteration, the mean of a few."""
    from tetribench.engine.hf.device_time import busy_seconds

    async def iterate() -> None:
        for _ in range(NUM_PROFILED):
            await engine.run(step.batch(engine.info.block_size))

    return await busy_seconds(iterate) / NUM_PROFILED


def _say(answers: BinaryIO, answer: object) -> None:
    pickle.dump(answer, answers)
    answers.flush()


if __name__ == "__main__":
    main()
