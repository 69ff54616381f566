"""The kernels as operators of torch's."""

import ctypes
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from functools import cache, partial

from torch import Tensor

from tetribench.engine.hf.attention.native.library import Shape, kernels
from tetribench.engine.hf.operators import Call, define

CHUNK_ROWS = 8
"""Queries of a chunk at a time."""

PADDING = 16
"""Between the scores of two of them, beside the most keys."""


def _paged_store(keys: Tensor, values: Tensor, slots: Tensor, key_blocks: Tensor, value_blocks: Tensor) -> Call:
    """Of each row `[rows, kv_heads, size]` into the blocks of one layer, at `slots`, counted in vectors from its
    first."""
    calls = []
    for rows, blocks in ((keys, key_blocks), (values, value_blocks)):
        row, head, _ = rows.stride()
        shape = ctypes.byref(_shape(rows, blocks))
        addresses = (slots.data_ptr(), blocks.data_ptr())
        calls.append(partial(kernels().store, rows.data_ptr(), row, head, *addresses, shape, rows.shape[0]))
    return partial(_check, calls)


def _paged_decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_table: Tensor,
    num_keys: Tensor,
    scores: Tensor,
    out: Tensor,
    scaling: float,
) -> Call:
    """The first rows of `query` and `out`, one for each of `block_table`; `scores` is scratch, `[heads, most keys]`."""
    shape = _shape(query, keys, block_table, scores.shape[1])
    assert query.shape[1] == scores.shape[0], "as many heads as the model declares"
    tensors = (query, keys, values, block_table, num_keys, out, scores)
    call = partial(kernels().decode, *_addresses(tensors), ctypes.byref(shape), block_table.shape[0], scaling)
    return partial(_check, [call])


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
) -> Call:
    """Sequence `i` has rows `[row_starts[i], row_starts[i + 1])` of `query` and `out`. Scratch are `turned` and
    `gathered`, both `[most keys, size]`, and `scores`, `[CHUNK_ROWS, most keys + PADDING]`."""
    shape = _shape(query, keys, block_table, turned.shape[0])
    tensors = (query, keys, values, block_table, num_keys, row_starts, out, turned, gathered, scores)
    call = partial(kernels().chunks, *_addresses(tensors), ctypes.byref(shape), block_table.shape[0], scaling)
    return partial(_check, [call])


def _shape(rows: Tensor, blocks: Tensor, block_table: Tensor | None = None, most_keys: int = 0) -> Shape:
    """Rows and heads of `rows` need not be neighbours, as they are not after a rotation."""
    row, head, number = rows.stride()
    assert number == 1, "the numbers of a head are neighbours"
    table_width = 0 if block_table is None else block_table.stride(0)
    return _shape_of(rows.shape[1], blocks.shape, blocks.stride(0), row, head, table_width, most_keys)


@cache
def _shape_of(
    heads: int, blocks: tuple[int, ...], block_stride: int, row: int, head: int, table_width: int, most_keys: int
) -> Shape:
    """Few differ in a process, and making one takes as long as a small kernel."""
    num_blocks, block_size, kv_heads, size = blocks
    return Shape(
        heads=heads,
        kv_heads=kv_heads,
        size=size,
        num_blocks=num_blocks,
        block_size=block_size,
        block_stride=block_stride,
        query_row=row,
        query_head=head,
        table_width=table_width,
        most_keys=most_keys,
    )


def _check(calls: SequenceOf[Callable[[], int]]) -> None:
    for call in calls:
        if call():
            raise IndexError("a sequence's keys lie outside of the pool, or are more than its context may have")


def _addresses(tensors: tuple[Tensor, ...]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


paged_store = define(
    "paged_store(Tensor keys, Tensor values, Tensor slots, Tensor(a!) key_blocks, Tensor(b!) value_blocks) -> ()",
    _paged_store,
)
paged_decode = define(
    "paged_decode(Tensor query, Tensor keys, Tensor values, Tensor block_table, Tensor num_keys, Tensor(a!) scores, "
    "Tensor(b!) out, float scaling) -> ()",
    _paged_decode,
)
paged_chunks = define(
    "paged_chunks(Tensor query, Tensor keys, Tensor values, Tensor block_table, Tensor num_keys, Tensor row_starts, "
    "Tensor(a!) turned, Tensor(b!) gathered, Tensor(c!) scores, Tensor(d!) out, float scaling) -> ()",
    _paged_chunks,
)
