"""Attention on the CPU: decodes by the kernel in C, chunks by torch as in `sdpa`."""

import ctypes
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableBackend
from tetribench.engine.hf.attention.native.library import Shape, paged_decode
from tetribench.engine.hf.attention.sdpa import SdpaBackend, SdpaPlan
from tetribench.engine.hf.attention.tables import Tables, block_table
from tetribench.engine.hf.cache import TorchKVPool

_LANES = 16
"""Scores are computed that many at a time."""


@dataclass(frozen=True, slots=True)
class NativePlan(AttentionPlan):
    """The first `num_decode` rows are decodes; `others` writes all rows, and attends to the rest.

    `num_keys` `[rows]` and `block_table` `[rows, width]` are int32; a table may be a part of a wider one. `scores` is
    the kernel's scratch memory, `[heads, most keys]`.
    """

    pool: TorchKVPool
    num_decode: int
    num_keys: Tensor
    block_table: Tensor
    scores: Tensor
    others: SdpaPlan

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self.others.write(layer, keys, values)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        if not self.num_decode:
            return self.others.attend(layer, query, keys, values, scaling)
        decoded = self._decode(layer, query[: self.num_decode].contiguous(), scaling)
        if not self.others.chunks:
            return decoded
        return torch.cat([decoded, self.others.attend(layer, query, keys, values, scaling)])

    def _decode(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        assert query.shape[1] == self.scores.shape[0], "as many heads as the model declares"
        out = torch.empty_like(query)
        keys, values = self.pool.layers[layer]
        _, block_size, kv_heads, size = keys.shape
        shape = Shape(
            heads=query.shape[1],
            kv_heads=kv_heads,
            size=size,
            block_size=block_size,
            block_stride=keys.stride(0),
            table_width=self.block_table.stride(0),
            scores_width=self.scores.shape[1],
        )
        tensors = (query, keys, values, self.block_table, self.num_keys, out, self.scores)
        addresses = [tensor.data_ptr() for tensor in tensors]
        paged_decode()(*addresses, ctypes.byref(shape), self.num_decode, scaling)
        return out


class NativeBackend(ReplayableBackend):
    """Plans for one pool and a model of `num_heads` query heads; one pass at a time, as all use the same scratch."""

    name = "native"

    def __init__(self, pool: TorchKVPool, max_context_tokens: int, num_heads: int) -> None:
        self._pool = pool
        self._sdpa = SdpaBackend(pool, max_context_tokens)
        paged_decode()  # compiled now, not in the first pass
        self._scores = pool.memory.new_empty((num_heads, ceil_div(max_context_tokens, _LANES) * _LANES))

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> NativePlan:
        num_keys = [sequence.num_tokens for sequence in decode]
        assert max(num_keys, default=0) <= self._scores.shape[1], "no context is longer than the longest"
        return NativePlan(
            pool=self._pool,
            num_decode=len(decode),
            num_keys=torch.tensor(num_keys, dtype=torch.int32),
            block_table=torch.from_numpy(block_table(decode, num_keys, self._pool.block_size)),
            scores=self._scores,
            others=self._sdpa.plan_chunks(slots, prefill, start=len(decode)),
        )

    def plan_fixed(self, slots: Tensor, tables: Tables) -> NativePlan:
        return NativePlan(
            pool=self._pool,
            num_decode=tables.num_decode,
            num_keys=tables.num_keys,
            block_table=tables.block_table,
            scores=self._scores,
            others=self._sdpa.plan_chunks(slots, [], start=tables.num_decode),
        )
