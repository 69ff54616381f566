"""Which steps are measured: what instances run, up to the sizes that the engine can hold."""

from collections.abc import Iterator

from tetribench.calibrate.steps import Step

CHUNKS = (16, 32, 64, 128, 256, 512, 1024)
BEFORE = (0, 256, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS = (16, 128, 512, 1024, 2047)
PROMPTS = ((2, 32), (4, 32), (8, 32), (2, 128), (4, 128))
MIXED_CHUNKS = (32, 128, 512)
MIXED_BATCHES = (1, 4, 16, 32)
MIXED_CONTEXT = 256


def grid(
    *, max_prefill_tokens: int, max_sequences: int, max_context_tokens: int, num_blocks: int, block_size: int
) -> list[Step]:
    """Chunks by what came before them, several prompts at once, decode batches by their context, and both together."""
    return [
        step
        for step in _steps()
        if sum(size for _, size in step.chunks) <= max_prefill_tokens
        and len(step.contexts) <= max_sequences
        and max([start + size for start, size in step.chunks] + list(step.contexts)) <= max_context_tokens
        and step.num_blocks(block_size) <= num_blocks
    ]


def _steps() -> Iterator[Step]:
    for start in BEFORE:
        for size in CHUNKS:
            yield Step(((start, size),))
    for num, size in PROMPTS:
        yield Step(((0, size),) * num)
    for num in BATCHES:
        for context in CONTEXTS:
            yield Step((), (context,) * num)
    for size in MIXED_CHUNKS:
        for num in MIXED_BATCHES:
            yield Step(((0, size),), (MIXED_CONTEXT,) * num)
