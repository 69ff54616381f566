"""Attention by FlashInfer's paged prefill, which takes decodes as chunks of one row."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.core.units import MIB, ceil_div
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionBackend
from tetribench.engine.hf.attention.by_tables import StoringPlan
from tetribench.engine.hf.cache import TorchKVPool

_WORKSPACE_BYTES = 128 * MIB
"""What its documentation asks for."""


@dataclass(frozen=True, slots=True)
class FlashInferPlan(StoringPlan):
    """`wrapper` is planned for this pass, until the next one."""

    wrapper: Any

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """The scale goes into the queries: it would have to be known when the pass is planned."""
        rows = (query[: self.num_used] * scaling).contiguous()
        out: Tensor = self.wrapper.run(rows, self.pool.layers[layer])
        return out


class FlashInferBackend(AttentionBackend):
    """Plans for one pool and a model of `num_heads` query heads."""

    name = "flashinfer"

    def __init__(self, pool: TorchKVPool, num_heads: int) -> None:
        workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=pool.memory.device)
        package: Any = import_module("flashinfer")
        self._wrapper = package.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        self._pool = pool
        self._num_heads = num_heads

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> FlashInferPlan:
        rows = [*(1 for _ in decode), *(chunk.num_tokens for chunk in prefill)]
        num_keys = [*(s.num_tokens for s in decode), *(chunk.start + chunk.num_tokens for chunk in prefill)]
        block_ids = [s.block_ids for s in (*decode, *(chunk.sequence for chunk in prefill))]
        block_size, memory = self._pool.block_size, self._pool.memory
        sizes = [ceil_div(number, block_size) for number in num_keys]
        if rows:
            self._wrapper.plan(
                _ints([0, *np.cumsum(rows)]),
                _ints([0, *np.cumsum(sizes)]),
                _ints([block for ids, size in zip(block_ids, sizes, strict=True) for block in ids[:size]]).to(
                    memory.device
                ),
                _ints([(number - 1) % block_size + 1 for number in num_keys]),
                self._num_heads,
                memory.shape[4],
                memory.shape[5],
                block_size,
                causal=True,
                sm_scale=1.0,
                q_data_type=memory.dtype,
                kv_data_type=memory.dtype,
            )
        return FlashInferPlan(self._pool, slots, sum(rows), self._wrapper)


def _ints(values: SequenceOf[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)
