"""What of a prefilled request's KV is sent when (paper section 3.3.4). Pure bookkeeping; `kv.links` moves the bytes."""

from dataclasses import dataclass, replace
from enum import Enum

from tetribench.core.sequence import Sequence


class Granularity(Enum):
    """When KV leaves the prefill instance."""

    request = "request"
    """Once, after the last chunk: what the paper built."""
    chunk = "chunk"
    """After every chunk, beside the computation of the next: what the paper leaves to future work."""
    layer = "layer"
    """Layer by layer while the chunk is computed, once the target is known; until then as `chunk`."""


@dataclass(slots=True)
class Push:
    """Copy blocks `source_ids` here to `target_ids` on instance `to`; the request's last push when `is_last`.

    With a `layer`, only that layer of them, and not before the batch that runs, or is about to run, has computed it.
    """

    request_id: int
    ticket: int
    to: str
    source_ids: list[int]
    target_ids: list[int]
    is_last: bool
    layer: int | None = None


@dataclass(slots=True)
class Moved:
    """A push that has ended: `num_bytes` were moving from `started_s` to `ended_s`, or `error` says why not."""

    push: Push
    started_s: float
    ended_s: float
    num_bytes: int
    error: str | None = None


@dataclass(slots=True, eq=False)
class Handover:
    """One request on its way from a prefill instance to the decode instance `to`; `ticket` is its name there.

    `num_kv_tokens` are handed over: the prompt, and of a request that starts again also the response so far.
    Blocks are written whole and once: a block that the next chunk will still fill waits for it.
    The blocks' contents must not change between `next_push` and the end of the copy, which chunked prefill guarantees.
    """

    sequence: Sequence
    to: str
    ticket: int
    num_kv_tokens: int
    granularity: Granularity
    block_size: int
    target_ids: list[int] | None = None
    is_cancelled: bool = False
    num_pushed_blocks: int = 0
    num_in_flight: int = 0
    num_moved_bytes: int = 0
    busy_s: float = 0.0
    has_arrived: bool = False
    """Its last push has ended, which of the last layer may be before the chunk itself does."""

    @property
    def is_prefilled(self) -> bool:
        return self.sequence.num_computed >= self.num_kv_tokens

    def next_push(self) -> Push | None:
        """The blocks that are ready and not yet pushed, if the target has made room; marks them as pushed."""
        if self.granularity is Granularity.request and not self.is_prefilled:
            return None
        push = self._push_until(self.sequence.num_computed)
        if push is not None:
            self.num_in_flight += 1
        return push

    def pushes_of_layers(self, num_computed: int, num_layers: int) -> list[Push]:
        """One push for each layer of the blocks that an iteration completes, which computes up to position
        `num_computed`; none without granularity `layer`."""
        if self.granularity is not Granularity.layer:
            return []
        whole = self._push_until(num_computed)
        if whole is None:
            return []
        self.num_in_flight += num_layers
        last = num_layers - 1
        return [replace(whole, layer=layer, is_last=whole.is_last and layer == last) for layer in range(num_layers)]

    def _push_until(self, num_computed: int) -> Push | None:
        """Blocks not yet pushed that are complete once `num_computed` positions are; marks them as pushed."""
        if self.is_cancelled or self.target_ids is None:
            return None
        num_blocks = len(self.target_ids)
        is_prefilled = num_computed >= self.num_kv_tokens
        num_ready = num_blocks if is_prefilled else num_computed // self.block_size
        if num_ready <= self.num_pushed_blocks:
            return None
        window = slice(self.num_pushed_blocks, num_ready)
        self.num_pushed_blocks = num_ready
        return Push(
            request_id=self.sequence.request.id,
            ticket=self.ticket,
            to=self.to,
            source_ids=self.sequence.block_ids[window],
            target_ids=self.target_ids[window],
            is_last=num_ready == num_blocks,
        )

    def moved(self, moved: Moved) -> None:
        """Count a push that has ended."""
        self.num_in_flight -= 1
        self.num_moved_bytes += moved.num_bytes
        self.busy_s += moved.ended_s - moved.started_s
        self.has_arrived |= moved.push.is_last
