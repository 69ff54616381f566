"""What is measured of an engine without a server around it."""

from dataclasses import dataclass
from math import ceil

import msgspec


class Work(msgspec.Struct, frozen=True):
    """`batch` prompts of `num_prompt_tokens`, all there at once, each answered with `num_output_tokens`."""

    batch: int
    num_prompt_tokens: int
    num_output_tokens: int


class Course(msgspec.Struct, frozen=True):
    """How an engine did its work, on a clock of its own: when it was given it, when each iteration ended, and for each
    prompt when each of its tokens was there."""

    given_s: float
    ends_s: list[float]
    tokens_s: list[list[float]]


def prompt_ids(id: int, num_tokens: int) -> list[int]:
    """The same on all engines."""
    return [(7 * id + position) % 1000 + 4 for position in range(num_tokens)]


@dataclass(frozen=True, slots=True)
class Case:
    """A rate in tokens per second. `budget` is the most tokens in an iteration, `chunk` the tokens of each prompt's
    last chunk where it is about those and not about decodes."""

    name: str
    model: str
    budget: int
    work: Work
    chunk: int | None = None

    def rate(self, course: Course) -> float:
        return self._decode_rate(course) if self.chunk is None else self._chunk_rate(course, self.chunk)

    def _decode_rate(self, course: Course) -> float:
        """While all sequences decode: from when the last of them has its first token until one has its last."""
        begin_s = max(tokens_s[0] for tokens_s in course.tokens_s)
        end_s = min(tokens_s[-1] for tokens_s in course.tokens_s)
        num_tokens = sum(begin_s < time_s <= end_s for tokens_s in course.tokens_s for time_s in tokens_s)
        assert num_tokens > NUM_DECODES / 2 * self.work.batch, "the prompts took so long that few steps were decodes"
        return num_tokens / (end_s - begin_s)

    def _chunk_rate(self, course: Course, chunk: int) -> float:
        """In their iterations, but for the first prompt's: an engine that has waited for its turn finds its memory in
        no cache, which takes it longer than a chunk."""
        num_chunks = self.work.num_prompt_tokens // chunk
        assert len(course.ends_s) == self.work.batch * num_chunks, "chunks have another size"
        lasts = range(2 * num_chunks - 1, len(course.ends_s), num_chunks)
        seconds = sum(course.ends_s[last] - course.ends_s[last - 1] for last in lasts)
        return chunk * len(lasts) / seconds


DECODE_BUDGET = 2048
NUM_DECODES = 32
NUM_PROMPTS = 6


def decode(model: str, batch: int, context: int) -> Case:
    """With more tokens, for the iterations in which not all prompts are computed: decodes take part of their budget."""
    num_prefills = ceil(1.25 * batch * context / DECODE_BUDGET) + 1
    name = f"decode, {model}, batch {batch}, context {context}"
    return Case(name, model, DECODE_BUDGET, Work(batch, context, NUM_DECODES + num_prefills))


def prefill(model: str, chunk: int, context: int) -> Case:
    """The last chunk of a prompt whose other tokens are in chunks of the same size, one prompt after the other."""
    name = f"prefill, {model}, chunk {chunk} after {context}"
    return Case(name, model, chunk, Work(NUM_PROMPTS, context + chunk, 1), chunk)


DECODES = [
    decode(model, batch, context)
    for model in ("opt_tiny", "llama_tiny")
    for context in (32, 512)
    for batch in (1, 16, 64)
]
CASES = [
    *DECODES,
    decode("smollm2", 8, 128),
    *[prefill("opt_tiny", chunk, context) for chunk in (256, 512) for context in (0, 1024)],
]
