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


ANY_NUMBER = 2**62
"""More iterations than there will be."""


class Admission(Protocol):
    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        """Whether `candidate` may take memory now, beside `members`, which hold theirs and grow.

        The scheduler asks only when the candidate's present tokens fit, and never when there are no members: a lone
        request always fits, which the run has checked before it began.
        """

    def num_refusals(
        self, candidate: Sequence, running: SequenceOf[Sequence], receiving: SequenceOf[Sequence], kv: KVView
    ) -> int:
        """How often `candidate` is refused at least, this time and then after each iteration; 1 if it is admitted now.

        Meanwhile those `running` get a token and the memory for it in every iteration, and nothing else changes.
        """


def predicted_total(sequence: Sequence, estimate: Estimate) -> int:
    """Tokens that `sequence` is expected to hold when it ends.

    A request that has outlived its prediction is taken to be in the next bucket, and so on; the paper leaves this open.
    `max_output_tokens` is not looked at: where lengths are forced it is the truth, which no policy may know.
    """
    return sequence.num_tokens + _to_go(sequence, estimate)


def remaining(sequence: Sequence, estimate: Estimate) -> int:
    """Tokens that `sequence` is still expected to produce; at least one, or it would have ended."""
    return _to_go(sequence, estimate) or 1


def _to_go(sequence: Sequence, estimate: Estimate) -> int:
    """From the tokens of the response so far to the expected end, which moves on by whole buckets."""
    predicted = sequence.predicted
    num_tokens = predicted.estimate(estimate) - len(sequence.output_ids)
    return num_tokens if num_tokens >= 0 else num_tokens % (predicted.high - predicted.low)


class Greedy:
    """vLLM's policy: admit while the tokens that exist now fit. Memory may run out later; then someone is preempted."""

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        return True

    def num_refusals(
        self, candidate: Sequence, running: SequenceOf[Sequence], receiving: SequenceOf[Sequence], kv: KVView
    ) -> int:
        return 1


class _Reserve:
    """Policies that look at predicted lengths; `estimate` is the point of the bucket that is believed."""

    def __init__(self, *, estimate: Estimate = Estimate.low) -> None:
        self.estimate = estimate


class ReserveStatic(_Reserve):
    """Admit if the candidate's whole predicted memory fits in what is free at this iteration."""

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        return kv.rounded(predicted_total(candidate, self.estimate)) <= kv.num_free_tokens

    def num_refusals(
        self, candidate: Sequence, running: SequenceOf[Sequence], receiving: SequenceOf[Sequence], kv: KVView
    ) -> int:
        """What is free only becomes less."""
        return 1 if self.admits(candidate, running, kv) else ANY_NUMBER


class ReserveDynamic(_Reserve):
    """Admit if memory would still remain at the moment the member with the shortest predicted rest ends.

    Until that moment everyone grows by one token a step; at that moment the member's memory comes back, which is why
    this policy may admit where reserve-static would wait.
    """

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        estimate, block_size = self.estimate, kv.block_size
        horizon = min([_to_go(member, estimate) for member in members]) or 1
        num_blocks = -(-(candidate.num_tokens + min(horizon, remaining(candidate, estimate))) // block_size)
        for member in members:  # none of them ends before the horizon
            num_tokens = member.request.num_prompt_tokens + len(member.output_ids) + horizon
            num_blocks += -(-num_tokens // block_size) - len(member.block_ids)
        return num_blocks * block_size <= kv.num_free_tokens

    def num_refusals(
        self, candidate: Sequence, running: SequenceOf[Sequence], receiving: SequenceOf[Sequence], kv: KVView
    ) -> int:
        """What those running need until the horizon stays the same while it comes closer, as what they have taken is
        no longer free. What the others need falls, a block at a time."""
        estimate, block_size = self.estimate, kv.block_size
        if self.admits(candidate, [*running, *receiving], kv):
            return 1
        horizon = min([_to_go(one, estimate) for one in running])
        fixed = min([_to_go(one, estimate) for one in receiving], default=horizon + 1)
        if fixed <= horizon:
            return horizon - fixed + 1  # until then the horizon stands still, and those running only need more
        expected = remaining(candidate, estimate)
        until_less = [(one.num_tokens + horizon - 1) % block_size + 1 for one in receiving]
        until_less.append(
            max(horizon - expected, 0) + (candidate.num_tokens + min(horizon, expected) - 1) % block_size + 1
        )
        return max(min(horizon, *until_less), 1)
