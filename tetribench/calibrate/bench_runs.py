"""Whole batches served by vLLM of 2024, timed end to end: LLM-Inference-Bench (Argonne), float16, 1 to 4 devices.

A run is a batch of prompts of L tokens that all arrive at once and get L tokens each. vLLM computes the prompts first,
as many whole ones an iteration as its budget of tokens holds (the model's longest context, its default), and then
decodes all of them: L - 1 steps whose context is 1.5 L on average. Runs whose KV does not fit the devices are left out,
as their requests waited for memory. Its A100 has 40 GB: the runs that would need more take twice as long and longer.
"""

from collections.abc import Iterator
from pathlib import Path

from tetribench.calibrate.kernels import LLAMA_8B, rows_of
from tetribench.calibrate.steps import Point, Step
from tetribench.core.units import ceil_div
from tetribench.engine.model import Architecture, Model, ModelShape

LLAMA_7B = Model(
    name="llama_7b",
    architecture=Architecture.llama,
    num_layers=32,
    hidden_size=4096,
    ffn_size=11008,
    num_heads=32,
    num_kv_heads=32,
    vocab_size=32000,
    max_context_tokens=4096,
).shape()

MODELS = {"meta-llama/Meta-Llama-3-8B": ("Llama-8B", LLAMA_8B), "meta-llama/Llama-2-7b-hf": ("Llama-7B", LLAMA_7B)}
HARDWARE = {"a100": "Nvidia A100 GPU", "h100": "Nvidia H100 GPU", "gh200": "Nvidia GH200 GPU"}
NUM_DEVICES = (1, 2, 4)
MEMORY_SHARE = 0.9
BYTES_PER_VALUE = 2


def run_points(data: Path, device: str, memory_bytes: float, *, is_fitted: bool = True) -> list[Point]:
    """All runs of vLLM on a device, one series for each model, batch and number of devices, by length."""
    points = []
    for row in rows_of(data / "llm-inference-bench" / "All_results_nvidia.csv.gz"):
        num_devices = int(row["Num of Hardware"])
        if row["Hardware"] != HARDWARE[device] or row["Framework"] != "vLLM" or row["Model"] not in MODELS:
            continue
        name, shape = MODELS[row["Model"]]
        size, length = int(row["Batch Size"]), int(row["Input Output Length"])
        if num_devices in NUM_DEVICES and _fits(shape, size, length, num_devices * memory_bytes):
            first, *others = _prefills(shape, size, length)
            decodes = Step((), (length + length // 2,) * size)
            series = f"{name} x {size}" if num_devices == 1 else f"{name} x {size} on {num_devices}"
            points.append(
                Point(
                    group="vLLM runs" if num_devices == 1 else f"vLLM runs on {num_devices}",
                    series=series,
                    x=length,
                    model=shape,
                    step=first,
                    others=(*((prefill, 1) for prefill in others), (decodes, length - 1)),
                    measured_s=float(row["Latency"]),
                    num_devices=num_devices,
                    is_fitted=is_fitted,
                )
            )
    return sorted(points, key=lambda point: (point.group, point.series, point.x))


def _fits(shape: ModelShape, size: int, length: int, memory_bytes: float) -> bool:
    kv_bytes = size * 2 * length * shape.kv_bytes_per_token(BYTES_PER_VALUE)
    return kv_bytes + shape.num_parameters * BYTES_PER_VALUE <= MEMORY_SHARE * memory_bytes


def _prefills(shape: ModelShape, size: int, length: int) -> Iterator[Step]:
    num_together = max(shape.max_context_tokens // length, 1)
    for index in range(ceil_div(size, num_together)):
        yield Step(((0, length),) * min(num_together, size - index * num_together))
