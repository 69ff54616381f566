"""What a step takes against the least that it could take: the device's copies and products, and nothing else."""

from dataclasses import asdict, dataclass
from typing import Any

from tetribench.calibrate.steps import Step
from tetribench.core.units import ceil_div
from tetribench.engine.model import Architecture, Model, ModelShape

CONTEXT_TOKENS = 512
DECODE_MARKS = {16: 1.25, 128: 1.35}
"""At most so many times the floor, by batch size."""

CHUNK_MARKS = {512: 1.30, 2048: 1.30}
"""Likewise, by tokens of the chunk."""

HANDOVER_MARK = 1.5

HOST_SHARE = "host time outside the device per decode iteration"
HOST_SHARE_MARK = 0.03
DEVICE_IS_HOST = "the device has no clock of its own"

VLLM_MARK = 0.9
"""At least so much of the throughput of vLLM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One row. `seconds` and `floor_s` are None where nothing was measured, and `remark` says why."""

    what: str
    seconds: float | None = None
    floor_s: float | None = None
    at_most: float | None = None
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.seconds is None or self.floor_s is None else self.seconds / self.floor_s

    @property
    def is_met(self) -> bool | None:
        return None if self.ratio is None or self.at_most is None else self.ratio <= self.at_most

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "is_met": self.is_met}


@dataclass(frozen=True, slots=True)
class Work:
    """A step to time, and the least that it must move or compute."""

    what: str
    step: Step
    at_most: float
    num_bytes: float = 0.0
    num_flops: float = 0.0

    def mark(self, seconds: float, memory_bytes_per_s: float, flops_per_s: float) -> Mark:
        floor_s = self.num_bytes / memory_bytes_per_s + self.num_flops / flops_per_s
        return Mark(what=self.what, seconds=seconds, floor_s=floor_s, at_most=self.at_most)

    def why_not(self, num_blocks: int, block_size: int, max_context_tokens: int) -> str | None:
        """The reason why an engine of this size cannot run it."""
        longest = max([*self.step.contexts, *(start + size for start, size in self.step.chunks)])
        if longest > max_context_tokens:
            return f"the model takes {max_context_tokens} tokens"
        needed = self.step.num_blocks(block_size)
        if needed > num_blocks:
            return f"needs {needed} blocks of {num_blocks}; engine.kv_memory_gib is too small"
        return None


def works(model: Model, bytes_per_value: int) -> list[Work]:
    shape = model.shape()
    layers = layer_parameters(model)
    weight_bytes = (layers + shape.vocab_size * shape.hidden_size) * bytes_per_value
    kv_bytes = shape.kv_bytes_per_token(bytes_per_value) * CONTEXT_TOKENS
    decodes = [
        Work(
            what=f"decode step, batch {num}, context {CONTEXT_TOKENS}",
            step=Step((), (CONTEXT_TOKENS,) * num),
            at_most=at_most,
            num_bytes=weight_bytes + num * kv_bytes,
        )
        for num, at_most in DECODE_MARKS.items()
    ]
    chunks = [
        Work(
            what=f"prefill of one {num}-token chunk",
            step=Step(((0, num),)),
            at_most=at_most,
            num_flops=2.0 * layers * num + _attention_flops(shape, num),
        )
        for num, at_most in CHUNK_MARKS.items()
    ]
    return decodes + chunks


def handover(
    model: Model, bytes_per_value: int, block_size: int, copy_bytes_per_s: float, memory_bytes_per_s: float
) -> Mark:
    """Whole blocks of `CONTEXT_TOKENS` tokens, each byte read and written once."""
    num_tokens = ceil_div(CONTEXT_TOKENS, block_size) * block_size
    num_bytes = model.shape().kv_bytes_per_token(bytes_per_value) * num_tokens
    return Mark(
        what=f"KV hand-over of {CONTEXT_TOKENS} tokens on one device",
        seconds=num_bytes / copy_bytes_per_s,
        floor_s=2 * num_bytes / memory_bytes_per_s,
        at_most=HANDOVER_MARK,
        remark="the copy alone; whether it hides behind the last chunk is not measured",
    )


def host_share(step: Step, seconds: float, device_s: float) -> Mark:
    """What of an iteration's `seconds` nothing ran on the device, which was at work for `device_s` of them."""
    return Mark(
        what=f"{HOST_SHARE}, batch {len(step.contexts)}",
        seconds=max(seconds - device_s, 0.0),
        floor_s=seconds,
        at_most=HOST_SHARE_MARK,
        remark="of the iteration; kernels and copies by the profiler, the iteration without it",
    )


def layer_parameters(model: Model) -> int:
    """Those that every token of a chunk is multiplied with.

    Embeddings are left out twice where they may be untied: a floor must not be too high.
    """
    shape = model.shape()
    is_opt = model.is_random and model.architecture is Architecture.opt
    num_rows = shape.vocab_size + (shape.max_context_tokens if is_opt else shape.vocab_size)
    return shape.num_parameters - num_rows * shape.hidden_size


def _attention_flops(shape: ModelShape, num_tokens: int) -> float:
    """Scores and weighted sum of the keys that each token may see."""
    return 4.0 * shape.num_layers * shape.num_heads * shape.head_size * num_tokens * (num_tokens + 1) / 2
