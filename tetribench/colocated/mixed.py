"""Chunked prefill mixed with decodes: stall-free batching (Sarathi-Serve, arXiv 2403.02310, section 4.2)."""

from tetribench.colocated.base import ColocatedPolicies, ColocatedScheduler
from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch, EngineInfo, PrefillChunk


class MixedPolicies(ColocatedPolicies):
    """An iteration computes at most `max_num_batched_tokens` tokens, those of the decodes included.

    The budget bounds the time between two tokens of a response: small (512) is Sarathi-Serve's choice for latency.
    It covers at least one token for each of the `max_num_seqs` that may run.
    """

    def __init__(self, *, max_num_seqs: int = 256, max_num_batched_tokens: int = 512, watermark: float = 0.01) -> None:
        super().__init__(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, watermark=watermark)
        if max_num_batched_tokens < max_num_seqs:
            raise ValueError(
                f"scheduler.max_num_batched_tokens={max_num_batched_tokens}: must be at least "
                f"scheduler.max_num_seqs={max_num_seqs}, as every running sequence gets a token in every iteration"
            )

    def build(self, name: str, info: EngineInfo) -> "MixedScheduler":
        return MixedScheduler(name, self, info)


class MixedScheduler(ColocatedScheduler):
    """Every iteration holds a token for every running sequence, then prompt chunks while its budget lasts.

    The chunks continue the prompt begun earlier, then begin new ones. Only the last chunk can leave its prompt
    unfinished, so there is at most one such prompt, and it is the member that came last.
    """

    def __init__(self, name: str, policies: MixedPolicies, info: EngineInfo) -> None:
        super().__init__(name, policies, info)
        self._unfinished: Sequence | None = None

    def next_batch(self, now_s: float) -> Batch | None:
        if self._unfinished in self._make_room(now_s):
            self._unfinished = None
        decode = [member for member in self._running.members if member is not self._unfinished]
        chunks = self._cut(self._policies.max_num_batched_tokens - len(decode), now_s)
        return Batch(prefill=chunks, decode=decode) if chunks or decode else None

    def _cut(self, budget: int, now_s: float) -> list[PrefillChunk]:
        """Prompt chunks of at most `budget` tokens in all."""
        chunks: list[PrefillChunk] = []
        while budget > 0:
            sequence = self._unfinished or self._first_in_line
            if sequence is None:
                break
            if sequence is not self._unfinished:
                self._begin(sequence, now_s)
            num_tokens = min(sequence.num_uncomputed, budget)
            chunks.append(PrefillChunk(sequence, sequence.num_computed, num_tokens))
            budget -= num_tokens
            self._unfinished = sequence if num_tokens < sequence.num_uncomputed else None
        return chunks
