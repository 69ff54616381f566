"""Prefill times as sums of measured kernels: NVIDIA's aiconfigurator, TensorRT-LLM in bfloat16 on one device.

A layer is its matrix products and its attention; norms and elementwise work, launches and the scheduler are not in it,
so that only large prompts are taken, of which those are a small part. Where the table has no matrix of a model's size,
it is cut in two that it has.
"""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

from scipy.optimize import nnls

from tetribench.calibrate.section3 import OPT_13B
from tetribench.calibrate.steps import Point, Step
from tetribench.engine.model import Architecture, Model

SOURCES = {"a100": "trtllm-1.0.0", "h100": "trtllm-1.3.0rc20", "h200": "trtllm-1.3.0rc20"}

LLAMA_8B = Model(
    name="llama_8b",
    architecture=Architecture.llama,
    num_layers=32,
    hidden_size=4096,
    ffn_size=14336,
    num_heads=32,
    num_kv_heads=8,
    vocab_size=128256,
    max_context_tokens=8192,
).shape()

MATRICES = {
    "OPT-13B": (OPT_13B, [(5120, 5120)] * 4 + [(10240, 5120)] * 2 + [(5120, 10240)] * 2),
    "Llama-8B": (
        LLAMA_8B,
        [(6144, 4096), (4096, 4096), (16384, 4096), (12288, 4096), (4096, 12288), (4096, 2048)],
    ),
}
"""By model its shape and the products of one layer, as (output width, input width)."""

PROMPT_TOKENS = (512, 1024, 2048, 4096, 8192)
HIDDEN_BYTES = 2
"""Of a value that is all-reduced."""


def prefill_points(data: Path, device: str) -> list[Point]:
    """One prompt alone, on one device."""
    folder, source = data / "aiconfigurator", SOURCES[device]
    products = _table(folder / f"{device}_sxm_{source}_gemm_bf16.csv.gz", ("n", "k", "m"))
    attention = _table(
        folder / f"{device}_sxm_{source}_context_attention_bf16_hd128.csv.gz",
        ("num_heads", "num_key_value_heads", "batch_size", "isl"),
    )
    return [
        Point(
            group="prefill kernels",
            series=name,
            x=size,
            model=shape,
            step=Step(((0, size),)),
            measured_s=shape.num_layers
            * (
                sum(products[width, depth, size] for width, depth in matrices)
                + attention[shape.num_heads, shape.num_kv_heads, 1, size]
            ),
        )
        for name, (shape, matrices) in MATRICES.items()
        for size in PROMPT_TOKENS
    ]


def all_reduce_bytes_per_s(data: Path, device: str) -> float:
    """Of the custom all-reduce among 2, 4 and 8 devices, from 8 KiB on: a constant and a slope, by relative error."""
    path = data / "aiconfigurator" / f"{device}_sxm_{SOURCES[device]}_custom_allreduce_bf16.csv"
    rows = []
    for (num_devices, num_values), seconds in _table(path, ("num_gpus", "message_size")).items():
        num_bytes = num_values * HIDDEN_BYTES
        if num_bytes >= 8192:
            rows.append([1.0 / seconds, 2 * (num_devices - 1) / num_devices * num_bytes / seconds])
    (_, s_per_byte), _ = nnls(rows, [1.0] * len(rows))
    return float(1.0 / s_per_byte)


def decode_ratio(data: Path, device: str, other: str) -> dict[str, float]:
    """How many times as fast `device` is as `other` in loading weights and KV, by the kernels of OPT-13B's decodes."""
    weights, kv = [], []
    for name in (device, other):
        folder, source = data / "aiconfigurator", SOURCES[name]
        products = _table(folder / f"{name}_sxm_{source}_gemm_bf16.csv.gz", ("n", "k", "m"))
        weights.append(sum(products[width, depth, 16] for width, depth in MATRICES["OPT-13B"][1]))
        attention = _table(
            folder / f"{name}_sxm_{source}_generation_attention_bf16_hd128.csv.gz",
            ("num_heads", "num_key_value_heads", "batch_size", "step"),
        )
        kv.append(attention[OPT_13B.num_heads, OPT_13B.num_kv_heads, 64, 1023])
    return {"bytes_per_s": weights[1] / weights[0], "kv_bytes_per_s": kv[1] / kv[0]}


def _table(path: Path, keys: tuple[str, ...]) -> dict[tuple[int, ...], float]:
    """Seconds by the integers in the columns `keys`; the first of equal rows."""
    found: dict[tuple[int, ...], float] = {}
    for row in rows_of(path):
        found.setdefault(tuple(int(float(row[key])) for key in keys), float(row["latency"]) / 1e3)
    return found


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Of a table, perhaps a compressed one. Raises ValueError where the measurements have not been fetched."""
    if not path.is_file():
        raise ValueError(f"task.data={path.parent.parent}: has no {path.parent.name}/{path.name}")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from csv.DictReader(file)
