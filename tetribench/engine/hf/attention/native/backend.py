"""Attention on the CPU by kernels in C, which follow the block tables."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableChunkBackend
from tetribench.engine.hf.attention.native.library import kernels
from tetribench.engine.hf.attention.native.operators import (
    CHUNK_ROWS,
    PADDING,
    paged_chunks,
    paged_decode,
    paged_store,
)
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool

_KEYS = 32
"""Scores are computed that many at a time, or fewer."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that all passes use, as the operators describe it."""

    decode_scores: Tensor
    chunk_scores: Tensor
    turned: Tensor
    gathered: Tensor

    @classmethod
    def of(cls, pool: TorchKVPool, max_context_tokens: int, num_heads: int) -> "Scratch":
        most_keys, size = ceil_div(max_context_tokens, _KEYS) * _KEYS, pool.memory.shape[5]
        new = pool.memory.new_empty
        return cls(
            decode_scores=new((num_heads, most_keys)),
            chunk_scores=new((CHUNK_ROWS, most_keys + PADDING)),
            turned=new((most_keys, size)),
            gathered=new((most_keys, size)),
        )


@dataclass(frozen=True, slots=True)
class NativePlan(AttentionPlan):
    """`num_used` rows are before the padding; a block table may be a part of a wider one."""

    pool: TorchKVPool
    slots: Tensor
    num_used: int
    tables: Tables
    scratch: Scratch

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        paged_store(keys, values, self.slots, *self.pool.layers[layer])

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        tables, scratch, pooled = self.tables, self.scratch, self.pool.layers[layer]
        out = query.new_empty((self.num_used, *query.shape[1:]))
        num_decode, num_sequences = tables.num_decode, tables.num_keys.shape[0]
        if num_decode:
            of_decodes = (tables.block_table[:num_decode], tables.num_keys)
            paged_decode(query, *pooled, *of_decodes, scratch.decode_scores, out, scaling)
        if num_decode < num_sequences:
            of_chunks = [tensor[num_decode:] for tensor in (tables.block_table, tables.num_keys, tables.row_starts)]
            used = (scratch.turned, scratch.gathered, scratch.chunk_scores)
            paged_chunks(query, *pooled, *of_chunks, *used, out, scaling)
        return out


class NativeBackend(ReplayableChunkBackend):
    """Plans for one pool and a model of `num_heads` query heads; one pass at a time, as all use the same scratch."""

    name = "native"
    is_traceable = True
    follows_tables = True

    def __init__(self, pool: TorchKVPool, max_context_tokens: int, num_heads: int) -> None:
        self._pool = pool
        kernels()  # compiled now, not in the first pass
        self._scratch = Scratch.of(pool, max_context_tokens, num_heads)

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> NativePlan:
        tables = Tables.of(decode, prefill, self._pool.block_size, self._pool.memory.device)
        return self._plan(slots, tables, len(decode) + sum(chunk.num_tokens for chunk in prefill))

    def plan_fixed(self, slots: Tensor, tables: Tables) -> NativePlan:
        return self._plan(slots, tables, tables.num_decode)

    def plan_fixed_chunks(self, slots: Tensor, tables: Tables) -> NativePlan:
        return self._plan(slots, tables, tables.max_chunk_rows)

    def _plan(self, slots: Tensor, tables: Tables, num_used: int) -> NativePlan:
        return NativePlan(self._pool, slots, num_used, tables, self._scratch)
