"""A request while an instance holds it: its tokens so far, its KV blocks, how far it is computed."""

from dataclasses import dataclass, field
from enum import Enum

from tetribench.core.request import HEAVY_DECODE_TOKENS, Request


class Estimate(Enum):
    """Which point of a predicted range stands for it; the paper's admission uses the lower end (section 3.4)."""

    low = "low"
    mean = "mean"
    high = "high"


_LOW, _HIGH = Estimate.low, Estimate.high  # looking a member up in its Enum costs more than the rest of `estimate`


@dataclass(frozen=True, slots=True)
class LengthRange:
    """Predicted response length: at least `low` and fewer than `high` tokens (paper section 3.3.2)."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"a length range needs 0 <= low < high, got [{self.low}, {self.high})")

    def estimate(self, point: Estimate) -> int:
        """One number for the range, in tokens; the high end is the longest response that is still inside."""
        if point is _LOW:
            return self.low
        return self.high - 1 if point is _HIGH else (self.low + self.high) // 2

    @property
    def is_heavy(self) -> bool:
        """Heavy decode, judged by the middle of the range."""
        return (self.low + self.high) // 2 > HEAVY_DECODE_TOKENS


@dataclass(slots=True, eq=False)
class Sequence:
    """Mutable state of one request on one instance.

    `block_ids` is its block table; `num_computed` tokens have their KV there. A chunk computes
    `[num_computed, num_computed + n)`; the chunk that reaches `num_tokens` yields the next token.
    A decoding sequence therefore always has exactly one token not yet computed: its latest.
    """

    request: Request
    predicted: LengthRange
    block_ids: list[int] = field(default_factory=list)
    num_computed: int = 0
    output_ids: list[int] = field(default_factory=list)
    attempt: int = 1
    """Counts the times that the request was begun; above 1 only after an instance that held it was lost."""

    @property
    def num_tokens(self) -> int:
        """Prompt and response tokens known so far."""
        return self.request.num_prompt_tokens + len(self.output_ids)

    @property
    def num_uncomputed(self) -> int:
        return self.num_tokens - self.num_computed

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Tokens at positions `[start, stop)`, prompt first; needs a request that carries its prompt."""
        num_prompt = self.request.num_prompt_tokens
        prompt = self.request.prompt_ids[start:stop]
        return [*prompt, *self.output_ids[max(start - num_prompt, 0) : max(stop - num_prompt, 0)]]

    def append(self, token_id: int, stop_token_ids: frozenset[int]) -> bool:
        """Add a produced token; True when it is the last one of the response."""
        output_ids, request = self.output_ids, self.request
        output_ids.append(token_id)
        if len(output_ids) >= request.max_output_tokens:
            return True
        return request.natural_stop and token_id in stop_token_ids
