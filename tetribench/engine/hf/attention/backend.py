"""The seam between a model's attention and what computes it: a backend plans each pass, the layers follow the plan."""

from collections.abc import Sequence as SequenceOf
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.engine.base import OnLayer, PrefillChunk
from tetribench.engine.hf.attention.tables import Tables


class AttentionPlan(Protocol):
    """One forward pass, all that its layers have in common. Rows are `[rows, heads, size]`."""

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Put the keys and values of all rows, padding too, in their slots."""

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """The outputs of the rows before the padding, of which there is at least one; `write` came before."""


class AttentionBackend(Protocol):
    """Computes attention over one pool."""

    name: str

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> AttentionPlan:
        """For rows of `decode` (longest first, a row each), then of `prefill`, then of padding.

        `slots` is int64 `[rows]`: where each row's key of layer 0 goes, counted in token vectors of the pool.
        """


@runtime_checkable
class ReplayableBackend(AttentionBackend, Protocol):
    """One whose decode passes can be recorded and replayed."""

    is_traceable: bool
    """All that those passes do are torch's operators, its own among them."""

    follows_tables: bool
    """A pass planned from tables takes no longer than one planned from its sequences."""

    def plan_fixed(self, slots: Tensor, tables: Tables) -> AttentionPlan:
        """For decodes alone, and with device work only: `slots` and `tables` are filled anew before each replay."""


@runtime_checkable
class ReplayableChunkBackend(ReplayableBackend, Protocol):
    """One whose passes over prefill chunks can be recorded too, whatever their contexts are."""

    def plan_fixed_chunks(self, slots: Tensor, tables: Tables) -> AttentionPlan:
        """The same for chunks alone, which have all rows; one of no rows may be among them."""


@dataclass(frozen=True, slots=True)
class PagedRows:
    """One forward pass as the hook sees it; rows from `num_used` on are padding."""

    plan: AttentionPlan
    num_used: int


paged_rows: ContextVar[PagedRows] = ContextVar("paged_rows")
"""The forward pass that runs in this thread: not every model hands unknown arguments down to its attention."""

layer_written: ContextVar[OnLayer | None] = ContextVar("layer_written", default=None)
"""Called with each layer of that forward pass whose keys and values are in the pool, where someone waits for them."""
