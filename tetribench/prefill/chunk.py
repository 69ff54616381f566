"""Chunked prefill: scheduled prompts are one stream of tokens, cut into pieces of ChunkSize (paper section 3.3.3)."""

from collections import deque

from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.kv.blocks import BlockAllocator

DEFAULT_CHUNK_SIZE = 512
"""The paper's, for OPT-13B on two V100."""


class Chunker:
    """Cuts the head of the scheduled queue into one chunk of at most `chunk_size` tokens.

    A chunk may end one prompt and begin the next; it never mixes in decodes. `chunk_size` is meant to be the
    accelerator's saturation point for the model: by default what `task=calibrate` found, where the run's hardware is
    that profile and its model the same, else the paper's. `chunk_size_from` is where it comes from, for the report.

    The paper pads a chunk that the queue cannot fill to ChunkSize with zeros. `pad` does so; it is off by default,
    because padding only costs time where no kernel of fixed shape needs it.
    """

    def __init__(self, *, chunk_size: int | None = None, chunk_size_from: str = "given", pad: bool = False) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(
                f"prefill.chunk.chunk_size={chunk_size}: must be at least 1, or null for what was measured"
            )
        self.chunk_size = DEFAULT_CHUNK_SIZE if chunk_size is None else chunk_size
        self.chunk_size_from = chunk_size_from
        self.pad = pad

    def cut(self, scheduled: deque[Sequence], kv: BlockAllocator) -> Batch | None:
        """The next chunk, or None when nothing waits or the first in line has no memory.

        A prompt gets the blocks for all of its tokens with its first chunk, so that one that was begun can always be
        finished and return its memory. Prompts whose last token is in the chunk leave the queue.
        """
        batch, budget = Batch(), self.chunk_size
        while scheduled and budget:
            sequence = scheduled[0]
            if not kv.can_hold(sequence, sequence.num_tokens):
                break
            kv.extend(sequence, sequence.num_tokens)
            num_tokens = min(sequence.num_uncomputed, budget)
            batch.prefill.append(PrefillChunk(sequence, sequence.num_computed, num_tokens))
            budget -= num_tokens
            if num_tokens < sequence.num_uncomputed:
                break
            scheduled.popleft()
        if not batch.prefill:
            return None
        batch.num_padding_tokens = budget if self.pad else 0
        return batch
