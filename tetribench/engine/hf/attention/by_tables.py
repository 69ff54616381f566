"""What backends have in common whose kernels write by slots, and follow block tables themselves."""

from abc import abstractmethod
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableChunkBackend
from tetribench.engine.hf.attention.kernels.store import store
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool


@dataclass(frozen=True, slots=True)
class StoringPlan(AttentionPlan):
    """`num_used` rows are before the padding."""

    pool: TorchKVPool
    slots: Tensor
    num_used: int

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        store(keys.contiguous(), values.contiguous(), *self.pool.layers[layer], self.slots)


class TablesBackend(ReplayableChunkBackend):
    """Plans a pass from its tables alone, whether they are made for it or filled anew for a replay."""

    is_traceable = False
    follows_tables = True

    def __init__(self, pool: TorchKVPool) -> None:
        self._pool = pool

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> StoringPlan:
        tables = Tables.of(decode, prefill, self._pool.block_size, self._pool.memory.device)
        return self._plan(slots, tables, len(decode) + sum(chunk.num_tokens for chunk in prefill))

    def plan_fixed(self, slots: Tensor, tables: Tables) -> StoringPlan:
        return self._plan(slots, tables, tables.num_decode)

    def plan_fixed_chunks(self, slots: Tensor, tables: Tables) -> StoringPlan:
        return self._plan(slots, tables, slots.shape[0])

    @abstractmethod
    def _plan(self, slots: Tensor, tables: Tables, num_used: int) -> StoringPlan: ...
