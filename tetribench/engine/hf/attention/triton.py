"""Attention by kernels of our own, which follow the block tables on the device."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableBackend
from tetribench.engine.hf.attention.kernels.decode import SPLIT_COUNTS, num_splits, paged_decode
from tetribench.engine.hf.attention.kernels.prefill import paged_prefill
from tetribench.engine.hf.attention.kernels.store import store
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool


@dataclass(frozen=True, slots=True)
class TritonPlan(AttentionPlan):
    """`num_used` rows are before the padding."""

    pool: TorchKVPool
    slots: Tensor
    tables: Tables
    num_used: int

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        store(keys.contiguous(), values.contiguous(), *self.pool.layers[layer], self.slots)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        blocks, tables, num_decode = self.pool.layers[layer], self.tables, self.tables.num_decode
        rows = query[: self.num_used].contiguous()
        out = torch.empty_like(rows)
        if num_decode:
            splits = num_splits(num_decode, keys.shape[1])
            paged_decode(
                rows[:num_decode], *blocks, tables.block_table, tables.num_keys, scaling, out[:num_decode], splits
            )
        if tables.max_chunk_rows:
            paged_prefill(
                rows,
                *blocks,
                tables.row_starts,
                tables.block_table,
                tables.num_keys,
                first_chunk=num_decode,
                max_chunk_rows=tables.max_chunk_rows,
                scaling=scaling,
                out=out,
            )
        return out


class TritonBackend(ReplayableBackend):
    """Plans for one pool and a model of `num_heads` query heads."""

    name = "triton"

    def __init__(self, pool: TorchKVPool, num_heads: int) -> None:
        self._pool = pool
        self._compile_all_splits(num_heads)

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> TritonPlan:
        tables = Tables.of(decode, prefill, self._pool.block_size, self._pool.memory.device)
        num_used = len(decode) + sum(chunk.num_tokens for chunk in prefill)
        return TritonPlan(self._pool, slots, tables, num_used)

    def plan_fixed(self, slots: Tensor, tables: Tables) -> TritonPlan:
        return TritonPlan(self._pool, slots, tables, tables.num_decode)

    def _compile_all_splits(self, num_heads: int) -> None:
        """One warm-up pass meets one split count only; a batch of another size must not wait for the compiler."""
        memory = self._pool.memory
        query = memory.new_zeros((1, num_heads, memory.shape[5]))
        block_table = torch.full((1, 1), self._pool.scratch_block, dtype=torch.int32, device=memory.device)
        num_keys = torch.ones(1, dtype=torch.int32, device=memory.device)
        for splits in SPLIT_COUNTS:
            paged_decode(query, *self._pool.layers[0], block_table, num_keys, 1.0, torch.empty_like(query), splits)
