"""vLLM's scheduler as the paper compared against it (early 2024): whole prompts first, then one token for everyone."""

from tetribench.colocated.base import ColocatedPolicies, ColocatedScheduler
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk


class PrefillFirstPolicies(ColocatedPolicies):
    """At most `max_num_seqs` running sequences (vLLM's default is 256; the paper ran it with 16).

    The prompts of one iteration have together at most `max_num_batched_tokens`; a longer prompt runs by itself.
    """

    def __init__(self, *, max_num_seqs: int = 256, max_num_batched_tokens: int = 2048, watermark: float = 0.01) -> None:
        super().__init__(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, watermark=watermark)

    def build(self, name: str, info: EngineInfo) -> "PrefillFirstScheduler":
        return PrefillFirstScheduler(name, self, info)


class PrefillFirstScheduler(ColocatedScheduler):
    """An iteration holds whole prompts or decodes, never both; prompts go first."""

    def next_batch(self, now_s: float) -> Batch | None:
        prompts = self._begin_prompts(now_s)
        if prompts:
            return Batch(prefill=prompts)
        self._make_room(now_s)
        return Batch(decode=list(self._running.members)) if self._running.members else None

    def _begin_prompts(self, now_s: float) -> list[PrefillChunk]:
        """The prompts of the coming iteration, while seats, its token budget and memory last."""
        chunks: list[PrefillChunk] = []
        budget = self._policies.max_num_batched_tokens
        while (sequence := self._first_in_line) is not None:
            if sequence.num_tokens > budget and chunks:
                break
            self._begin(sequence, now_s)
            chunks.append(PrefillChunk(sequence, 0, sequence.num_tokens))
            budget -= sequence.num_tokens
        return chunks
