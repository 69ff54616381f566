"""Attention on the CPU by kernels in C, which follow the block tables."""

import ctypes
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableBackend
from tetribench.engine.hf.attention.native.library import Shape, kernels
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool

_KEYS = 32
"""Scores are computed that many at a time, or fewer."""

_CHUNK_ROWS = 8
"""Of a chunk, as many queries at a time."""

_PADDING = 16


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that all passes use: `decode_scores` `[heads, most_keys]`, and for chunks
    `chunk_scores` and one head's keys and values, `turned` and `gathered`."""

    most_keys: int
    decode_scores: Tensor
    chunk_scores: Tensor
    turned: Tensor
    gathered: Tensor

    @classmethod
    def of(cls, pool: TorchKVPool, max_context_tokens: int, num_heads: int) -> "Scratch":
        most_keys = ceil_div(max_context_tokens, _KEYS) * _KEYS
        new = pool.memory.new_empty
        return cls(
            most_keys=most_keys,
            decode_scores=new(num_heads * most_keys),
            chunk_scores=new(_CHUNK_ROWS * (most_keys + _PADDING)),
            turned=new(most_keys * pool.memory.shape[5]),
            gathered=new(most_keys * pool.memory.shape[5]),
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
        shape = self._shape(keys)
        for new, blocks in zip((keys, values), self.pool.layers[layer], strict=True):
            assert new.stride(2) == 1, "the numbers of a head are neighbours"
            addresses = (self.slots.data_ptr(), blocks.data_ptr())
            kernels().store(new.data_ptr(), new.stride(0), new.stride(1), *addresses, ctypes.byref(shape), new.shape[0])

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Queries of a row, or of a head, need not be neighbours, as they are not after a rotation."""
        assert query.stride(2) == 1, "the numbers of a head are neighbours"
        tables, scratch = self.tables, self.scratch
        out = query.new_empty((self.num_used, *query.shape[1:]))
        shape = self._shape(query)
        table, num_keys, row_starts = tables.block_table, tables.num_keys, tables.row_starts
        pooled = [blocks.data_ptr() for blocks in self.pool.layers[layer]]
        if tables.num_decode:
            assert query.shape[1] * scratch.most_keys == scratch.decode_scores.numel(), "as many heads as declared"
            others = [tensor.data_ptr() for tensor in (table, num_keys, out, scratch.decode_scores)]
            kernels().decode(query.data_ptr(), *pooled, *others, ctypes.byref(shape), tables.num_decode, scaling)
        num_chunks = num_keys.shape[0] - tables.num_decode
        if num_chunks:
            of_chunks = [tensor[tables.num_decode :] for tensor in (table, num_keys, row_starts)]
            used = (scratch.turned, scratch.gathered, scratch.chunk_scores)
            others = [tensor.data_ptr() for tensor in (*of_chunks, out, *used)]
            kernels().chunks(query.data_ptr(), *pooled, *others, ctypes.byref(shape), num_chunks, scaling)
        return out

    def _shape(self, rows: Tensor) -> Shape:
        """`rows` are queries where they are asked for."""
        keys = self.pool.layers[0][0]
        return Shape(
            heads=rows.shape[1],
            kv_heads=keys.shape[2],
            size=keys.shape[3],
            block_size=keys.shape[1],
            block_stride=keys.stride(0),
            query_row=rows.stride(0),
            query_head=rows.stride(1),
            table_width=self.tables.block_table.stride(0),
            most_keys=self.scratch.most_keys,
        )


class NativeBackend(ReplayableBackend):
    """Plans for one pool and a model of `num_heads` query heads; one pass at a time, as all use the same scratch."""

    name = "native"

    def __init__(self, pool: TorchKVPool, max_context_tokens: int, num_heads: int) -> None:
        self._pool = pool
        kernels()  # compiled now, not in the first pass
        self._scratch = Scratch.of(pool, max_context_tokens, num_heads)

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> NativePlan:
        tables = Tables.of(decode, prefill, self._pool.block_size, self._pool.memory.device)
        return self._plan(slots, tables, len(decode) + sum(chunk.num_tokens for chunk in prefill))

    def plan_fixed(self, slots: Tensor, tables: Tables) -> NativePlan:
        return self._plan(slots, tables, tables.num_decode)

    def _plan(self, slots: Tensor, tables: Tables, num_used: int) -> NativePlan:
        return NativePlan(self._pool, slots, num_used, tables, self._scratch)
