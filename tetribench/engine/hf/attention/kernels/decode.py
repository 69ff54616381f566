"""Attention of one query for each sequence to all of its keys, cut into splits that are computed side by side.

A batch of few sequences has too few programs for a GPU otherwise (Flash-Decoding, Dao et al. 2023). The first kernel
computes a softmax over each split; the second combines them, weighted by what each split's softmax summed up to.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tetribench.engine.hf.attention.kernels.tile import add_tile, load_tile

SPLIT_COUNTS = (1, 2, 4, 8, 16)

_ENOUGH_PROGRAMS = 2 * 132
"""Two for each multiprocessor of a Hopper GPU: one loads while the other computes."""

_TILE = 64
"""Keys at a time: with heads of 128 values of 2 bytes, a program takes 38 KiB of shared memory (Triton 3.7.1), so that
five fit into the 227 KiB of a Hopper multiprocessor and have enough loads under way."""

_NUM_WARPS = 4
_NUM_STAGES = 3

_LEAST_DOT_ROWS = 16
"""Tensor cores multiply no fewer rows than that; decoding waits for memory, and padding a group to it costs no time."""


def num_splits(num_sequences: int, num_kv_heads: int) -> int:
    """The fewest splits that make enough programs."""
    wanted = _ENOUGH_PROGRAMS / (num_sequences * num_kv_heads)
    return next((count for count in SPLIT_COUNTS if count >= wanted), SPLIT_COUNTS[-1])


def paged_decode(
    query: Tensor,
    key_blocks: Tensor,
    value_blocks: Tensor,
    block_table: Tensor,
    num_keys: Tensor,
    scaling: float,
    out: Tensor,
    splits: int,
) -> None:
    """Fills the first rows of `out`, one for each of the first `query.shape[0]` sequences of the tables (int32).

    A sequence without keys gets zeros.
    """
    num_rows, num_heads, head_size = query.shape
    num_kv_heads = key_blocks.shape[2]
    group = num_heads // num_kv_heads
    head_padded = triton.next_power_of_2(head_size)
    partial = query.new_empty((num_rows, num_heads, splits, head_size), dtype=torch.float32)
    log_sums = query.new_empty((num_rows, num_heads, splits), dtype=torch.float32)
    _attend_to_split[(num_rows, num_kv_heads, splits)](
        query,
        key_blocks,
        value_blocks,
        block_table,
        num_keys,
        partial,
        log_sums,
        scaling * math.log2(math.e),
        block_table.stride(0),
        key_blocks.stride(0),
        HEAD_SIZE=head_size,
        BLOCK_SIZE=key_blocks.shape[1],
        GROUP=group,
        NUM_SPLITS=splits,
        HEAD_PADDED=head_padded,
        GROUP_PADDED=max(_LEAST_DOT_ROWS, triton.next_power_of_2(group)),
        TILE=_TILE,
        num_warps=_NUM_WARPS,
        num_stages=_NUM_STAGES,
    )
    _combine[(num_rows, num_heads)](
        partial, log_sums, out, HEAD_SIZE=head_size, NUM_SPLITS=splits, HEAD_PADDED=head_padded, num_warps=1
    )


@triton.jit(do_not_specialize=["table_width"])
def _attend_to_split(
    query,
    key_blocks,
    value_blocks,
    block_table,
    num_keys,
    partial,
    log_sums,
    scale,
    table_width,
    block_stride,
    HEAD_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    HEAD_PADDED: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    TILE: tl.constexpr,
):
    """Heads that share a key head are the rows of one product. Exponents are of 2: `scale` contains log2(e)."""
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    num_kv_heads = tl.num_programs(1)

    length = tl.load(num_keys + row)
    split_keys = tl.cdiv(tl.cdiv(length, TILE), NUM_SPLITS) * TILE
    first_key = split * split_keys
    last_key = tl.minimum(first_key + split_keys, length)

    member = tl.arange(0, GROUP_PADDED)
    column = tl.arange(0, HEAD_PADDED)
    in_group = member < GROUP
    in_head = column < HEAD_SIZE
    head = (row * num_kv_heads + kv_head) * GROUP + member
    queries = tl.load(
        query + head[:, None] * HEAD_SIZE + column[None, :], mask=in_group[:, None] & in_head[None, :], other=0.0
    )

    best = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    summed = tl.zeros([GROUP_PADDED, HEAD_PADDED], tl.float32)
    for start in range(first_key, last_key, TILE):
        position = start + tl.arange(0, TILE)
        is_there = position < last_key
        keys, values = load_tile(
            key_blocks,
            value_blocks,
            block_table + row * table_width,
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
        scores = tl.where(is_there[None, :], scores, float("-inf"))
        best, total, summed = add_tile(scores, values, best, total, summed)

    has_keys = total > 0.0
    divisor = tl.where(has_keys, total, 1.0)
    place = head * NUM_SPLITS + split
    tl.store(
        partial + place[:, None] * HEAD_SIZE + column[None, :],
        summed / divisor[:, None],
        mask=in_group[:, None] & in_head[None, :],
    )
    log_sum = tl.where(has_keys, best + tl.log2(divisor), float("-inf"))
    tl.store(log_sums + place, log_sum, mask=in_group)


@triton.jit
def _combine(
    partial, log_sums, out, HEAD_SIZE: tl.constexpr, NUM_SPLITS: tl.constexpr, HEAD_PADDED: tl.constexpr
):  # fmt: skip
    head = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    split = tl.arange(0, NUM_SPLITS)
    column = tl.arange(0, HEAD_PADDED)
    in_head = column < HEAD_SIZE
    place = head * NUM_SPLITS + split
    log_sum = tl.load(log_sums + place)
    best = tl.max(log_sum, 0)
    weights = tl.exp2(log_sum - tl.where(best == float("-inf"), 0.0, best))
    total = tl.sum(weights, 0)
    parts = tl.load(partial + place[:, None] * HEAD_SIZE + column[None, :], mask=in_head[None, :], other=0.0)
    combined = tl.sum(parts * weights[:, None], 0) / tl.where(total > 0.0, total, 1.0)
    tl.store(out + head * HEAD_SIZE + column, combined.to(out.dtype.element_ty), mask=in_head)
