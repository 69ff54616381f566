"""Triton kernels against torch's own attention in float64: compiled where there is a GPU, else interpreted."""

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

pytest.importorskip("triton", reason="the package triton is not installed (pip install 'tetribench[dev]')")

import triton.language as tl

from tetribench.engine.hf.attention.kernels.decode import SPLIT_COUNTS, num_splits, paged_decode
from tetribench.engine.hf.attention.kernels.prefill import paged_prefill
from tetribench.engine.hf.attention.kernels.store import store

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
HEADS = {"mha": (4, 4), "gqa": (6, 2), "mqa": (4, 1)}
"""Query heads and key heads."""

shapes = pytest.mark.parametrize("head_size", [64, 80, 128])
heads = pytest.mark.parametrize("kind", sorted(HEADS))
block_sizes = pytest.mark.parametrize("block_size", [16, 64])


@dataclass(frozen=True, slots=True)
class Case:
    """Sequences of `lengths` tokens, in shuffled blocks of a pool that has two layers and garbage elsewhere."""

    memory: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    block_table: Tensor
    num_keys: Tensor

    @property
    def layer(self) -> tuple[Tensor, Tensor]:
        return self.memory[:, 1, 0], self.memory[:, 1, 1]


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as its bits, and would multiply these."""
    if DEVICE.type == "cuda":
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar.name != "bf16":
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return multiply(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def tensor(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(sizes, dtype=torch.float32).to(DEVICE, dtype)


def ints(values: list[int] | list[list[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def make_case(
    lengths: list[int], num_kv_heads: int, head_size: int, block_size: int, dtype: torch.dtype = torch.float32
) -> Case:
    """What no sequence owns is NaN: whoever reads it is found out."""
    torch.manual_seed(0)
    sizes = [-(-length // block_size) for length in lengths]
    free = list(range(sum(sizes) + 3))
    random.Random(1).shuffle(free)
    memory = torch.full((len(free), 2, 2, block_size, num_kv_heads, head_size), torch.nan, dtype=dtype, device=DEVICE)
    table = [[free.pop() for _ in range(size)] for size in sizes]
    keys = [tensor(length, num_kv_heads, head_size, dtype=dtype) for length in lengths]
    values = [tensor(length, num_kv_heads, head_size, dtype=dtype) for length in lengths]
    for row, length, *contents in zip(table, lengths, keys, values, strict=True):
        for position in range(length):
            for kind, rows in enumerate(contents):
                memory[row[position // block_size], 1, kind, position % block_size] = rows[position]
    width = max(sizes)
    padded = [row + [10**6] * (width - len(row)) for row in table]  # what lies beyond must not be followed
    return Case(memory, keys, values, ints(padded), ints(lengths))


def expected(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """In float64, of the last `query.shape[0]` rows, causal: `[rows, heads, size]`."""
    num_rows, num_keys = query.shape[0], keys.shape[0]
    q, k, v = (rows.double().transpose(0, 1)[None] for rows in (query, keys, values))
    mask = torch.ones(num_rows, num_keys, dtype=torch.bool, device=DEVICE).tril(num_keys - num_rows)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)[0].transpose(0, 1)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    limit = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), wanted, atol=limit, rtol=limit)


def decode(case: Case, num_heads: int, splits: int) -> tuple[Tensor, Tensor]:
    """What the kernel says for each sequence, and what is right."""
    head_size = case.memory.shape[-1]
    query = tensor(len(case.keys), num_heads, head_size, dtype=case.memory.dtype)
    out = torch.full_like(query, torch.nan)
    scaling = head_size**-0.5
    paged_decode(query, *case.layer, case.block_table, case.num_keys, scaling, out, splits)
    wanted = [expected(row[None], k, v, scaling) for row, k, v in zip(query, case.keys, case.values, strict=True)]
    return out, torch.cat(wanted)


@heads
@shapes
@block_sizes
def test_decode_at_ragged_contexts_and_block_boundaries(kind: str, head_size: int, block_size: int) -> None:
    num_heads, num_kv_heads = HEADS[kind]
    lengths = [1, block_size - 1, block_size, block_size + 1, 150]
    assert_close(*decode(make_case(lengths, num_kv_heads, head_size, block_size), num_heads, splits=2))


@pytest.mark.parametrize("splits", SPLIT_COUNTS)
def test_any_number_of_splits_gives_the_same(splits: int) -> None:
    """Of most splits, some get no key at all."""
    assert_close(*decode(make_case([1, 64, 65, 300], 2, 64, 16), 4, splits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_decode_in_low_precision(dtype: torch.dtype) -> None:
    assert_close(*decode(make_case([7, 130], 2, 80, 16, dtype), 4, splits=4))


def test_a_row_without_keys_gets_zeros_and_disturbs_no_other() -> None:
    case = make_case([40, 17], 2, 64, 16)
    query = tensor(3, 4, 64)
    out = torch.full_like(query, torch.nan)
    table = torch.cat([case.block_table, ints([[10**6] * case.block_table.shape[1]])])
    paged_decode(query, *case.layer, table, ints([40, 17, 0]), 0.125, out, 2)
    assert not out[2].any()
    for row in (0, 1):
        assert_close(out[row, None], expected(query[row, None], case.keys[row], case.values[row], 0.125))


def prefill(case: Case, num_heads: int, chunk_rows: list[int], num_decode: int = 0) -> tuple[list[Tensor], Tensor]:
    """The kernel's rows for each chunk; the whole output, whose other rows are NaN."""
    head_size = case.memory.shape[-1]
    rows = [1] * num_decode + chunk_rows
    starts = [sum(rows[:index]) for index in range(len(rows) + 1)]
    num_padding = 5
    query = tensor(starts[-1] + num_padding, num_heads, head_size, dtype=case.memory.dtype)
    out = torch.full_like(query, torch.nan)
    scaling = head_size**-0.5
    paged_prefill(
        query,
        *case.layer,
        ints(starts),
        case.block_table,
        case.num_keys,
        first_chunk=num_decode,
        max_chunk_rows=max(chunk_rows),
        scaling=scaling,
        out=out,
    )
    found = []
    for index in range(num_decode, len(rows)):
        mine = slice(starts[index], starts[index + 1])
        assert_close(out[mine], expected(query[mine], case.keys[index], case.values[index], scaling))
        found.append(out[mine])
    return found, out


@heads
@shapes
@block_sizes
def test_prefill_chunks_after_contexts_of_any_length(kind: str, head_size: int, block_size: int) -> None:
    """Contexts of none, less than a block, a block and more; chunks of one row and of more than a tile."""
    num_heads, num_kv_heads = HEADS[kind]
    chunks = [block_size + 1, 1, 9, 40]
    contexts = [0, block_size - 1, block_size, 100]
    lengths = [context + rows for context, rows in zip(contexts, chunks, strict=True)]
    prefill(make_case(lengths, num_kv_heads, head_size, block_size), num_heads, chunks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_prefill_in_low_precision_over_several_tiles(dtype: torch.dtype) -> None:
    prefill(make_case([150, 200], 1, 80, 16, dtype), 2, [150, 3])


def test_decode_rows_and_padding_are_left_to_others() -> None:
    case = make_case([20, 33, 50, 41], 2, 64, 16)
    _, out = prefill(case, 4, [50, 12], num_decode=2)
    assert out[:2].isnan().all() and out[64:].isnan().all()


@shapes
@block_sizes
def test_tokens_are_stored_in_their_slots_and_nowhere_else(head_size: int, block_size: int) -> None:
    num_layers, num_kv_heads = 3, 2
    memory = tensor(6, num_layers, 2, block_size, num_kv_heads, head_size, dtype=torch.float16)
    keys, values = tensor(2, 4, num_kv_heads, head_size, dtype=torch.float16)
    places = [(5, 0), (0, block_size - 1), (2, 3), (2, 4)]
    slots = [block * num_layers * 2 * block_size + offset for block, offset in places]
    wanted = memory.clone()
    for row, (block, offset) in enumerate(places):
        wanted[block, 1, 0, offset], wanted[block, 1, 1, offset] = keys[row], values[row]
    store(keys, values, memory[:, 1, 0], memory[:, 1, 1], torch.tensor(slots, device=DEVICE))
    assert torch.equal(memory, wanted)


def test_few_sequences_are_split_and_many_are_not() -> None:
    assert [num_splits(rows, 40) for rows in (1, 2, 4, 7, 128)] == [8, 4, 2, 1, 1]
    assert num_splits(1, 1) == SPLIT_COUNTS[-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="triton brings its assembler on Linux only")
def test_all_kernels_compile_for_a_hopper_gpu_and_two_programs_fit_a_multiprocessor(tmp_path: Path) -> None:
    """In another process: what was imported for the interpreter cannot be compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    compiled = subprocess.run(
        [sys.executable, "-m", "tests.engine.hf.attention.compile_for_hopper"],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    rows = [line.split() for line in compiled.stdout.splitlines()]
    assert {name for name, _, _ in rows} == {"_store", "_attend_to_split", "_combine", "_attend_causally"}
    assert max(int(shared) for _, _, shared in rows) <= 227 * 1024 // 2
