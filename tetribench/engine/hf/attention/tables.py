"""Where the sequences of a forward pass have their rows and keys, for kernels that follow block tables themselves."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.upload import upload


@dataclass(frozen=True, slots=True)
class Tables:
    """Sequence `i` has rows `[row_starts[i], row_starts[i + 1])`, the last of its `num_keys[i]` tokens.

    Int32, on the device. `block_table` is `[sequences, blocks]`; what is beyond a sequence's tokens is never read. The
    first `num_decode` sequences have one row each, the others at most `max_chunk_rows`.
    """

    row_starts: Tensor
    num_keys: Tensor
    block_table: Tensor
    num_decode: int
    max_chunk_rows: int

    @classmethod
    def of(
        cls,
        decode: SequenceOf[Sequence],
        prefill: SequenceOf[PrefillChunk],
        block_size: int,
        device: torch.device,
    ) -> "Tables":
        rows = [*(1 for _ in decode), *(chunk.num_tokens for chunk in prefill)]
        num_keys = [*(s.num_tokens for s in decode), *(chunk.start + chunk.num_tokens for chunk in prefill)]
        sequences = [*decode, *(chunk.sequence for chunk in prefill)]
        table = block_table(sequences, num_keys, block_size)
        return cls(
            row_starts=upload(np.cumsum([0, *rows], dtype=np.int32), device),
            num_keys=upload(np.array(num_keys, dtype=np.int32), device),
            block_table=upload(table, device),
            num_decode=len(decode),
            max_chunk_rows=max((chunk.num_tokens for chunk in prefill), default=0),
        )


def block_table(
    sequences: SequenceOf[Sequence], num_keys: SequenceOf[int], block_size: int, filler: int = 0
) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Block ids of each sequence's first `num_keys` tokens, filled up with `filler`."""
    sizes = [ceil_div(number, block_size) for number in num_keys]
    table = np.full((len(sizes), max(sizes, default=0)), filler, dtype=np.int32)
    for row, sequence, size in zip(table, sequences, sizes, strict=True):
        row[:size] = sequence.block_ids[:size]
    return table
