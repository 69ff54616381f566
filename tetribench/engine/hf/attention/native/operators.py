"""The kernels as operators of torch's, so that whatever records a pass sees them."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from tetribench.engine.hf.attention.native.library import Shape, kernels

CHUNK_ROWS = 8
"""Queries of a chunk at a time."""

PADDING = 16
"""Between the scores of two of them, beside the most keys."""

_LIBRARY: Any = torch.library.Library("tetribench", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("paged_store(Tensor rows, Tensor slots, Tensor(a!) blocks) -> ()")
_LIBRARY.define(
    "paged_decode(Tensor query, Tensor keys, Tensor values, Tensor block_table, Tensor num_keys, Tensor(a!) scores, "
    "Tensor(b!) out, float scaling) -> ()"
)
_LIBRARY.define(
    "paged_chunks(Tensor query, Tensor keys, Tensor values, Tensor block_table, Tensor num_keys, Tensor row_starts, "
    "Tensor(a!) turned, Tensor(b!) gathered, Tensor(c!) scores, Tensor(d!) out, float scaling) -> ()"
)


def _paged_store(rows: Tensor, slots: Tensor, blocks: Tensor) -> None:
    """`rows` `[rows, kv_heads, size]` into `blocks`, of one layer, at `slots`, counted in vectors from its first."""
    shape = _shape(rows, blocks)
    addresses = (slots.data_ptr(), blocks.data_ptr())
    strides = (rows.stride(0), rows.stride(1))
    _check(kernels().store(rows.data_ptr(), *strides, *addresses, ctypes.byref(shape), rows.shape[0]))


def _paged_decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_table: Tensor,
    num_keys: Tensor,
    scores: Tensor,
    out: Tensor,
    scaling: float,
) -> None:
    """The first rows of `query` and `out`, one for each of `block_table`; `scores` is scratch, `[heads, most keys]`."""
    shape = _shape(query, keys, block_table, scores.shape[1])
    assert query.shape[1] == scores.shape[0], "as many heads as the model declares"
    tensors = (query, keys, values, block_table, num_keys, out, scores)
    _check(kernels().decode(*_addresses(tensors), ctypes.byref(shape), block_table.shape[0], scaling))


def _paged_chunks(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_table: Tensor,
    num_keys: Tensor,
    row_starts: Tensor,
    turned: Tensor,
    gathered: Tensor,
    scores: Tensor,
    out: Tensor,
    scaling: float,
) -> None:
    """Sequence `i` has rows `[row_starts[i], row_starts[i + 1])` of `query` and `out`. Scratch are `turned` and
    `gathered`, both `[most keys, size]`, and `scores`, `[CHUNK_ROWS, most keys + PADDING]`."""
    shape = _shape(query, keys, block_table, turned.shape[0])
    tensors = (query, keys, values, block_table, num_keys, row_starts, out, turned, gathered, scores)
    _check(kernels().chunks(*_addresses(tensors), ctypes.byref(shape), block_table.shape[0], scaling))


def _shape(rows: Tensor, blocks: Tensor, block_table: Tensor | None = None, most_keys: int = 0) -> Shape:
    """Rows and heads of `rows` need not be neighbours, as they are not after a rotation."""
    assert rows.stride(2) == 1, "the numbers of a head are neighbours"
    return Shape(
        heads=rows.shape[1],
        kv_heads=blocks.shape[2],
        size=blocks.shape[3],
        num_blocks=blocks.shape[0],
        block_size=blocks.shape[1],
        block_stride=blocks.stride(0),
        query_row=rows.stride(0),
        query_head=rows.stride(1),
        table_width=0 if block_table is None else block_table.stride(0),
        most_keys=most_keys,
    )


def _check(has_failed: int) -> None:
    if has_failed:
        raise IndexError("a sequence's keys lie outside of the pool, or are more than its context may have")


def _addresses(tensors: tuple[Tensor, ...]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


for _name, _function in (
    ("paged_store", _paged_store),
    ("paged_decode", _paged_decode),
    ("paged_chunks", _paged_chunks),
):
    _LIBRARY.impl(_name, _function, "CPU")
