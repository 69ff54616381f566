"""The shape of an iteration, and what was measured of some: what a cost model is fitted on."""

from dataclasses import dataclass

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.model import ModelShape


@dataclass(frozen=True, slots=True)
class Step:
    """An iteration by its sizes: chunks as (tokens before it, tokens), decodes by the tokens that each one reads."""

    chunks: tuple[tuple[int, int], ...] = ()
    contexts: tuple[int, ...] = ()

    def batch(self, block_size: int = 16) -> Batch:
        """Requests of these sizes with token 0 everywhere, in blocks of their own, counted from 0."""
        sequences = [_sequence(id, start + size, 0) for id, (start, size) in enumerate(self.chunks)]
        chunks = [
            PrefillChunk(sequence, start, size) for sequence, (start, size) in zip(sequences, self.chunks, strict=True)
        ]
        decodes = [_sequence(len(self.chunks) + id, max(size - 1, 1), 1) for id, size in enumerate(self.contexts)]
        num_blocks = 0
        for sequence in [*sequences, *decodes]:
            num_own = ceil_div(sequence.num_tokens, block_size)
            sequence.block_ids = list(range(num_blocks, num_blocks + num_own))
            num_blocks += num_own
        return Batch(prefill=chunks, decode=decodes)

    def num_blocks(self, block_size: int) -> int:
        """KV blocks that its sequences take."""
        sizes = [start + size for start, size in self.chunks] + [max(size, 2) for size in self.contexts]
        return sum(ceil_div(size, block_size) for size in sizes)


def _sequence(id: int, num_prompt_tokens: int, num_output_tokens: int) -> Sequence:
    request = Request(
        id=id,
        arrival_s=0.0,
        num_prompt_tokens=num_prompt_tokens,
        max_output_tokens=num_output_tokens + 1,
        prompt_ids=(0,) * num_prompt_tokens,
    )
    return Sequence(request=request, predicted=LengthRange(0, 1), output_ids=[0] * num_output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one step took: at `x` of a `series` of a `group`, as the source's figure or table has it.

    `others` are steps that were timed together with it, and how often each; for `beside_s` of the time another instance
    of the machine computed too, and `num_woken` of them found their instance idle. Tables show what `num_timed` of them
    took on average. A point that is not `is_fitted` is only compared: the constants do not know of it.
    """

    group: str
    series: str
    x: float
    model: ModelShape
    step: Step
    others: tuple[tuple[Step, int], ...] = ()
    measured_s: float
    beside_s: float = 0.0
    num_woken: int = 0
    num_timed: int = 1
    num_devices: int = 1
    is_fitted: bool = True
