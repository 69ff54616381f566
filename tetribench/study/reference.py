"""What requests of some lengths ask of a profile: bounds on their latency, and the rate that would fill an instance.

From the cost model alone, so that every system is held to the same yardstick, and none of them sets it.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.cost_model import CostModel
from tetribench.metrics.slo import Slo

FULL_BATCH_TOKENS = 2048
"""Prompt tokens of an iteration that no device is too large for; vLLM's default."""

MAX_NUM_SEQS = 256
"""vLLM's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`slo` is the bounds; the rest is of one instance that does both phases and never waits.

    `capacity_per_s` is the requests per second that keep it busy all the time, with full iterations of prompts and the
    largest batch of decodes that memory and the bound on TPOT allow. `stay_s` is how long a request then decodes.
    """

    slo: Slo
    capacity_per_s: float
    stay_s: float


def reference(
    engine: CostModelFactory, requests: SequenceOf[Request], ttft_slowdown: float, tpot_slowdown: float
) -> Reference:
    """The bounds are these slowdowns of the mean request on an instance of its own."""
    cost = CostModel(engine.model.shape(), engine.hardware)
    num_prompt = sum(request.num_prompt_tokens for request in requests) / len(requests)
    num_output = sum(request.max_output_tokens for request in requests) / len(requests)
    context = round(num_prompt + num_output / 2)
    ttft_s = ttft_slowdown * _prefill_s(cost, round(num_prompt))
    tpot_s = tpot_slowdown * cost.decode_seconds(1, context)
    num_fitting = engine.num_blocks() * engine.block_size / (num_prompt + num_output)
    sizes = range(1, max(1, min(MAX_NUM_SEQS, int(num_fitting))) + 1)
    num_seqs = max([size for size in sizes if cost.decode_seconds(size, size * context) <= tpot_s], default=1)
    step_s = cost.decode_seconds(num_seqs, num_seqs * context)
    prefill_s = num_prompt * _prefill_s(cost, FULL_BATCH_TOKENS) / FULL_BATCH_TOKENS
    return Reference(
        slo=Slo(ttft_s=ttft_s, tpot_s=tpot_s),
        capacity_per_s=1 / (prefill_s + num_output * step_s / num_seqs),
        stay_s=num_output * step_s,
    )


def _prefill_s(cost: CostModel, num_tokens: int) -> float:
    request = Request(id=0, arrival_s=0.0, num_prompt_tokens=max(1, num_tokens), max_output_tokens=1)
    sequence = Sequence(request, LengthRange(0, 1))
    return cost.seconds(Batch(prefill=[PrefillChunk(sequence, 0, request.num_prompt_tokens)]))
