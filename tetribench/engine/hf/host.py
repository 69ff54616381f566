"""Swapping: blocks of the KV memory that wait in host memory (paper section 3.4)."""

from collections.abc import Sequence as SequenceOf

import torch

from tetribench.engine.base import Batch, BlockPair
from tetribench.engine.hf.cache import TorchKVPool, copy_spans
from tetribench.engine.spans import Spans, spans


class HostMemory:
    """Room for `num_blocks` blocks of `pool` in the host's memory: pinned where the pool lies on a GPU, so that copies
    are direct and are ordered with the forward passes by the GPU's stream."""

    def __init__(self, pool: TorchKVPool, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._pool = pool
        num_bytes = num_blocks * pool.block_bytes
        # zeros: all of it is touched now, so that no swap pays for a page fault
        self.flat = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=pool.memory.is_cuda)

    def swap(self, batch: Batch) -> None:
        """The copies that `batch` begins with, out before in."""
        device = self._pool.flat
        if batch.swap_out:
            copy_spans(device, self.flat, self._spans(batch.swap_out))
        if batch.swap_in:
            copy_spans(self.flat, device, self._spans(batch.swap_in).turned())

    def _spans(self, pairs: SequenceOf[BlockPair]) -> Spans:
        """From the device to the host."""
        return spans([device for device, _ in pairs], [host for _, host in pairs], self._pool.block_bytes)
