"""FlashAttention 3 with paged keys, by the operators of a vLLM wheel's library file: vLLM's own kernels on Hopper."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableBackend
from tetribench.engine.hf.attention.kernels.store import store
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool


@dataclass(frozen=True, slots=True)
class Fa3Plan(AttentionPlan):
    """One call serves decodes and chunks; `num_used` rows are before the padding."""

    pool: TorchKVPool
    slots: Tensor
    tables: Tables
    num_used: int

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        store(keys.contiguous(), values.contiguous(), *self.pool.layers[layer], self.slots)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        rows = query[: self.num_used].contiguous()
        out = torch.empty_like(rows)
        _forward(rows, self.pool.layers[layer], self.tables, self.pool.block_size, scaling, out)
        return out


class Fa3Backend(ReplayableBackend):
    """Raises OSError where `library` was built for another torch."""

    name = "fa3"

    def __init__(self, pool: TorchKVPool, library: str) -> None:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        self._pool = pool

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> Fa3Plan:
        tables = Tables.of(decode, prefill, self._pool.block_size, self._pool.memory.device)
        num_used = len(decode) + sum(chunk.num_tokens for chunk in prefill)
        return Fa3Plan(self._pool, slots, tables, num_used)

    def plan_fixed(self, slots: Tensor, tables: Tables) -> Fa3Plan:
        return Fa3Plan(self._pool, slots, tables, tables.num_decode)


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
