"""What is measured of an engine without a server around it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Work:
    """`batch` prompts of `num_prompt_tokens`, all there at once, each answered with `num_output_tokens`."""

    batch: int
    num_prompt_tokens: int
    num_output_tokens: int


def prompt_ids(id: int, num_tokens: int) -> list[int]:
    """The same on all engines."""
    return [(7 * id + position) % 1000 + 4 for position in range(num_tokens)]


@dataclass(frozen=True, slots=True)
class Case:
    """A rate: `num_tokens` over how much longer `work` takes than `less`, which is what does not count."""

    name: str
    model: str
    budget: int
    """Most tokens in an iteration."""
    work: Work
    less: Work | None
    num_tokens: int

    def works(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in (self.work, self.less) if each is not None]


DECODE_BUDGET = 2048
NUM_DECODES = 32


def decode(model: str, batch: int, context: int) -> Case:
    """Tokens after the first, at contexts that grow from `context` by `NUM_DECODES`."""
    return Case(
        f"{model}: decode, batch {batch}, context {context}",
        model,
        DECODE_BUDGET,
        Work(batch, context, NUM_DECODES + 1),
        Work(batch, context, 1),
        batch * NUM_DECODES,
    )


def prefill(model: str, chunk: int, context: int) -> Case:
    """The last chunk of a prompt whose other tokens are in chunks of the same size."""
    less = Work(1, context, 1) if context else None
    return Case(
        f"{model}: prefill, chunk {chunk} after {context}", model, chunk, Work(1, context + chunk, 1), less, chunk
    )


CASES = [
    *[decode(model, batch, 128) for model in ("opt_tiny", "llama_tiny") for batch in (1, 16, 64)],
    *[decode("opt_tiny", 16, context) for context in (32, 512)],
    *[prefill("opt_tiny", chunk, context) for chunk in (256, 512) for context in (0, 1024)],
    decode("smollm2", 8, 128),
]
