"""FlashAttention 3 with paged keys, by the operators of a vLLM wheel's library file: vLLM's own kernels on Hopper."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tetribench.engine.hf.attention.by_tables import StoringPlan, TablesBackend
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool


@dataclass(frozen=True, slots=True)
class Fa3Plan(StoringPlan):
    """One call serves decodes and chunks."""

    tables: Tables

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        rows = query[: self.num_used].contiguous()
        out = torch.empty_like(rows)
        _forward(rows, self.pool.layers[layer], self.tables, self.pool.block_size, scaling, out)
        return out


class Fa3Backend(TablesBackend):
    """Raises OSError where `library` was built for another torch."""

    name = "fa3"

    def __init__(self, pool: TorchKVPool, library: str) -> None:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        super().__init__(pool)

    def _plan(self, slots: Tensor, tables: Tables, num_used: int) -> Fa3Plan:
        return Fa3Plan(self._pool, slots, num_used, tables)


def _forward(
    query: Tensor, blocks: tuple[Tensor, Tensor], tables: Tables, block_size: int, scaling: float, out: Tensor
) -> None:
    """The operator's arguments have no names. Those given are queries, pages, row starts, lengths and page table."""
    key_blocks, value_blocks = blocks
    no_new_keys, no_key_starts, no_rotary, no_scales = (None,) * 3, (None,) * 3, (None,) * 5, (None,) * 3
    is_causal, no_window, no_softcap, is_interleaved = True, (-1, -1), 0.0, True
    own_schedule, own_num_splits, own_packing, sm_margin, no_sinks = None, 0, None, 0, None
    one_context_part = (1, 0, None)
    torch.ops._vllm_fa3_C.fwd(
        query,
        key_blocks,
        value_blocks,
        *no_new_keys,
        out,
        tables.row_starts,
        *no_key_starts,
        tables.num_keys,
        max(tables.max_chunk_rows, 1),
        tables.block_table.shape[1] * block_size,  # the longest context, at most
        tables.block_table,
        *no_rotary,
        *no_scales,
        scaling,
        is_causal,
        *no_window,
        no_softcap,
        is_interleaved,
        own_schedule,
        own_num_splits,
        own_packing,
        sm_margin,
        no_sinks,
        *one_context_part,
    )
