"""Causal attention of prefill chunks of any length to their own keys and to all before them, which are in the pool."""

import math

import triton
import triton.language as tl
from torch import Tensor

from tetribench.engine.hf.attention.kernels.tile import add_tile, load_tile

_TILE_ROWS = 128
_TILE_KEYS = 64
"""A product of 128 rows fills the tensor cores of two warp groups. With heads of 128 values of 2 bytes, a program takes
96 KiB of shared memory (Triton 3.7.1): two fit into a Hopper multiprocessor."""

_NUM_WARPS = 8
_NUM_STAGES = 3

_FLOAT32_TILE_ROWS = 32
"""Exact products of float32 keep their operands in registers, which larger tiles would spill."""


def paged_prefill(
    query: Tensor,
    key_blocks: Tensor,
    value_blocks: Tensor,
    row_starts: Tensor,
    block_table: Tensor,
    num_keys: Tensor,
    first_chunk: int,
    max_chunk_rows: int,
    scaling: float,
    out: Tensor,
) -> None:
    """Fills the rows of `out` of the sequences from `first_chunk` on, whose tables are int32.

    Sequence `i` has rows `[row_starts[i], row_starts[i + 1])`, at most `max_chunk_rows`, which are the last of its
    `num_keys[i]` tokens.
    """
    num_heads, head_size = query.shape[1:]
    num_chunks = num_keys.shape[0] - first_chunk
    tile_rows = _TILE_ROWS if query.element_size() == 2 else _FLOAT32_TILE_ROWS
    _attend_causally[(triton.cdiv(max_chunk_rows, tile_rows), num_heads, num_chunks)](
        query,
        key_blocks,
        value_blocks,
        row_starts,
        block_table,
        num_keys,
        out,
        scaling * math.log2(math.e),
        first_chunk,
        block_table.stride(0),
        key_blocks.stride(0),
        HEAD_SIZE=head_size,
        BLOCK_SIZE=key_blocks.shape[1],
        GROUP=num_heads // key_blocks.shape[2],
        HEAD_PADDED=triton.next_power_of_2(head_size),
        TILE_ROWS=tile_rows,
        TILE_KEYS=_TILE_KEYS,
        num_warps=_NUM_WARPS if query.element_size() == 2 else _NUM_WARPS // 2,
        num_stages=_NUM_STAGES if query.element_size() == 2 else 1,
    )


@triton.jit(do_not_specialize=["first_chunk", "table_width"])
def _attend_causally(
    query,
    key_blocks,
    value_blocks,
    row_starts,
    block_table,
    num_keys,
    out,
    scale,
    first_chunk,
    table_width,
    block_stride,
    HEAD_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_PADDED: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_KEYS: tl.constexpr,
):
    """Exponents are of 2: `scale` contains log2(e). Every row sees key 0, so that no softmax is over nothing."""
    chunk = first_chunk + tl.program_id(2)
    head = tl.program_id(1)
    num_heads = tl.num_programs(1)
    num_kv_heads = num_heads // GROUP
    kv_head = head // GROUP

    chunk_start = tl.load(row_starts + chunk)
    chunk_rows = tl.load(row_starts + chunk + 1) - chunk_start
    length = tl.load(num_keys + chunk)
    first_row = tl.program_id(0) * TILE_ROWS
    row = first_row + tl.arange(0, TILE_ROWS)
    column = tl.arange(0, HEAD_PADDED)
    in_head = column < HEAD_SIZE
    is_mine = (row < chunk_rows)[:, None] & in_head[None, :]
    offset = ((chunk_start + row) * num_heads + head)[:, None] * HEAD_SIZE + column[None, :]
    queries = tl.load(query + offset, mask=is_mine, other=0.0)

    own_position = length - chunk_rows + row
    seen = tl.minimum(length, length - chunk_rows + first_row + TILE_ROWS)
    seen = tl.where(first_row < chunk_rows, seen, 0)
    best = tl.full([TILE_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([TILE_ROWS], tl.float32)
    summed = tl.zeros([TILE_ROWS, HEAD_PADDED], tl.float32)
    for start in range(0, seen, TILE_KEYS):
        position = start + tl.arange(0, TILE_KEYS)
        is_there = position < seen
        keys, values = load_tile(
            key_blocks,
            value_blocks,
            block_table + chunk * table_width,
            position,
            is_there,
            in_head,
            kv_head,
            num_kv_heads,
            block_stride,
            HEAD_SIZE,
            BLOCK_SIZE,
            HEAD_PADDED,
        )
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(position[None, :] <= own_position[:, None], scores, float("-inf"))
        best, total, summed = add_tile(scores, values, best, total, summed)

    divisor = tl.where(total > 0.0, total, 1.0)  # rows after the chunk's last have seen nothing
    tl.store(out + offset, (summed / divisor[:, None]).to(out.dtype.element_ty), mask=is_mine)
