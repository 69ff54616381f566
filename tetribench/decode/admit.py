"""Whether one more request may join the decodes of an instance (paper section 3.4)."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Protocol

from tetribench.core.sequence import Estimate, Sequence


@dataclass(frozen=True, slots=True)
class KVView:
    """The memory that the decision is about, in tokens of whole blocks."""

    block_size: int
    num_free_tokens: int

    def rounded(self, num_tokens: int) -> int:
        """`num_tokens` as memory: whole blocks."""
        return -(-num_tokens // self.block_size) * self.block_size


class Admission(Protocol):
    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        """Whether `candidate` may take memory now, beside `members`, which hold theirs and grow.

        The scheduler asks only when the candidate's present tokens fit, and never when there are no members: a lone
        request always fits, which the run has checked before it began.
        """


def predicted_total(sequence: Sequence, estimate: Estimate) -> int:
    """Tokens that `sequence` is expected to hold when it ends.

    A request that has outlived its prediction is taken to be in the next bucket, and so on; the paper leaves this open.
    `max_output_tokens` is not looked at: where lengths are forced it is the truth, which no policy may know.
    """
    predicted = sequence.predicted
    width = predicted.high - predicted.low
    overrun = max(len(sequence.output_ids) - predicted.estimate(estimate), 0)
    num_output = predicted.estimate(estimate) + -(-overrun // width) * width
    return sequence.request.num_prompt_tokens + num_output


def remaining(sequence: Sequence, estimate: Estimate) -> int:
    """Tokens that `sequence` is still expected to produce; at least one, or it would have ended."""
    return max(predicted_total(sequence, estimate) - sequence.num_tokens, 1)


class Greedy:
    """vLLM's policy: admit while the tokens that exist now fit. Memory may run out later; then someone is preempted."""

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        return True


class _Reserve:
    """Policies that look at predicted lengths; `estimate` is the point of the bucket that is believed."""

    def __init__(self, *, estimate: Estimate = Estimate.low) -> None:
        self.estimate = estimate

    def _growth(self, sequence: Sequence, num_steps: int, kv: KVView) -> int:
        """Memory that `sequence` takes beyond what it holds, over the next `num_steps` tokens or until it ends."""
        steps = min(num_steps, remaining(sequence, self.estimate))
        return kv.rounded(sequence.num_tokens + steps) - len(sequence.block_ids) * kv.block_size


class ReserveStatic(_Reserve):
    """Admit if the candidate's whole predicted memory fits in what is free at this iteration."""

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        return kv.rounded(predicted_total(candidate, self.estimate)) <= kv.num_free_tokens


class ReserveDynamic(_Reserve):
    """Admit if memory would still remain at the moment the member with the shortest predicted rest ends.

    Until that moment everyone grows by one token a step; at that moment the member's memory comes back, which is why
    this policy may admit where reserve-static would wait.
    """

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        horizon = min(remaining(member, self.estimate) for member in members)
        growth = sum(self._growth(member, horizon, kv) for member in members)
        return self._growth(candidate, horizon, kv) + growth <= kv.num_free_tokens
