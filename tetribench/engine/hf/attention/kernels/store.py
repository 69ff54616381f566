"""Keys and values of new tokens into their slots."""

import triton
import triton.language as tl
from torch import Tensor


def store(keys: Tensor, values: Tensor, key_blocks: Tensor, value_blocks: Tensor, slots: Tensor) -> None:
    """`slots` is int64 `[rows]`, counted in token vectors from the start of `key_blocks` and of `value_blocks`."""
    num_rows, num_kv_heads, head_size = keys.shape
    _store[(num_rows, num_kv_heads)](
        keys,
        values,
        key_blocks,
        value_blocks,
        slots,
        HEAD_SIZE=head_size,
        HEAD_PADDED=triton.next_power_of_2(head_size),
        num_warps=1,  # one head is a line or two of memory
    )


@triton.jit
def _store(
    keys, values, key_blocks, value_blocks, slots, HEAD_SIZE: tl.constexpr, HEAD_PADDED: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    num_kv_heads = tl.num_programs(1)
    column = tl.arange(0, HEAD_PADDED)
    in_head = column < HEAD_SIZE
    source = (row * num_kv_heads + kv_head) * HEAD_SIZE + column
    target = (tl.load(slots + row) * num_kv_heads + kv_head) * HEAD_SIZE + column
    tl.store(key_blocks + target, tl.load(keys + source, mask=in_head), mask=in_head)
    tl.store(value_blocks + target, tl.load(values + source, mask=in_head), mask=in_head)
