"""Attention by kernels of our own, which follow the block tables on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tetribench.engine.hf.attention.by_tables import StoringPlan, TablesBackend
from tetribench.engine.hf.attention.kernels.decode import SPLIT_COUNTS, num_splits, paged_decode
from tetribench.engine.hf.attention.kernels.prefill import paged_prefill
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool


@dataclass(frozen=True, slots=True)
class TritonPlan(StoringPlan):
    """Decodes and chunks have a kernel each."""

    tables: Tables

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


class TritonBackend(TablesBackend):
    """Plans for one pool and a model of `num_heads` query heads."""

    name = "triton"

    def __init__(self, pool: TorchKVPool, num_heads: int) -> None:
        super().__init__(pool)
        self._compile_all_splits(num_heads)

    def _plan(self, slots: Tensor, tables: Tables, num_used: int) -> TritonPlan:
        return TritonPlan(self._pool, slots, num_used, tables)

    def _compile_all_splits(self, num_heads: int) -> None:
        """One warm-up pass meets one split count only; a batch of another size must not wait for the compiler."""
        memory = self._pool.memory
        query = memory.new_zeros((1, num_heads, memory.shape[5]))
        block_table = torch.full((1, 1), self._pool.scratch_block, dtype=torch.int32, device=memory.device)
        num_keys = torch.ones(1, dtype=torch.int32, device=memory.device)
        for splits in SPLIT_COUNTS:
            paged_decode(query, *self._pool.layers[0], block_table, num_keys, 1.0, torch.empty_like(query), splits)
