"""What both attention kernels do with a tile of keys: bring it in from its blocks, and add it to a running softmax."""

import triton
import triton.language as tl


@triton.jit
def load_tile(
    key_blocks,
    value_blocks,
    table_row,
    position,
    is_there,
    in_head,
    kv_head,
    num_kv_heads,
    block_stride,
    HEAD_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_PADDED: tl.constexpr,
):
    """Keys and values at the positions that are there, zeros elsewhere; `table_row` points to the sequence's blocks."""
    column = tl.arange(0, HEAD_PADDED)
    block = tl.load(table_row + position // BLOCK_SIZE, mask=is_there, other=0)
    vector = block.to(tl.int64) * block_stride + (position % BLOCK_SIZE * num_kv_heads + kv_head) * HEAD_SIZE
    loaded = is_there[:, None] & in_head[None, :]
    keys = tl.load(key_blocks + vector[:, None] + column[None, :], mask=loaded, other=0.0)
    values = tl.load(value_blocks + vector[:, None] + column[None, :], mask=loaded, other=0.0)
    return keys, values


@triton.jit
def add_tile(scores, values, best, total, summed):
    """The softmax so far, with these scores (of 2 to their power): its largest score, its sum, its weighted values."""
    new_best = tl.maximum(best, tl.max(scores, 1))
    weights = tl.exp2(scores - new_best[:, None])
    decay = tl.exp2(best - new_best)
    total = total * decay + tl.sum(weights, 1)
    summed = summed * decay[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return new_best, total, summed
