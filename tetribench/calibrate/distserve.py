"""OPT-13B on A100-80GB, by the formulas that DistServe fitted to two engines; to compare with, not to fit on."""

import json
from pathlib import Path
from typing import Any

from tetribench.calibrate.section3 import OPT_13B
from tetribench.calibrate.steps import Point, Step

PROMPT_TOKENS = (512, 1024, 2048)
BATCHES = (1, 8, 32, 64, 128)
CONTEXT = 512
NUM_DEVICES = (1, 2, 4)
ENGINES = {"vllm": "vLLM of early 2024", "distserve": "DistServe's engine"}


def formula_points(data: Path) -> list[Point]:
    """Of vLLM as of early 2024, and of DistServe's own engine. Raises ValueError where they have not been fetched."""
    points = []
    for engine, name in ENGINES.items():
        path = data / "distserve" / f"profiler-a100-80g.{engine}.json"
        if not path.is_file():
            raise ValueError(f"task.data={data}: has no distserve/{path.name}")
        points += _points(json.loads(path.read_text())["facebook/opt-13b"], name)
    return points


def _points(formulas: dict[str, Any], group: str) -> list[Point]:
    """Milliseconds: of a prompt of n tokens a + b n + c n^2; of a decode step a + b (context) + c (sequences)."""
    points = []
    for num_devices in NUM_DEVICES:
        formula = formulas[str(num_devices)]
        constant, linear, square = formula["prefill"]
        for size in PROMPT_TOKENS:
            milliseconds = constant + linear * size + square * size**2
            step = Step(((0, size),))
            points.append(_point(group, f"prefill on {num_devices}", size, step, milliseconds, num_devices))
        for size in BATCHES:
            is_large = size >= formula["decoding_large_small_bs_threshold"]
            constant, linear, each = formula["decoding_largebs" if is_large else "decoding_smallbs"]
            milliseconds = constant + linear * size * CONTEXT + each * size
            step = Step((), (CONTEXT,) * size)
            points.append(_point(group, f"decode on {num_devices}", size, step, milliseconds, num_devices))
    return points


def _point(group: str, series: str, x: float, step: Step, milliseconds: float, num_devices: int) -> Point:
    return Point(
        group=group,
        series=series,
        x=x,
        model=OPT_13B,
        step=step,
        measured_s=milliseconds / 1e3,
        num_devices=num_devices,
        is_fitted=False,
    )
