"""Swapping: blocks of the KV memory that wait in host memory (paper section 3.4)."""

from collections.abc import Sequence as SequenceOf

import torch

from tetribench.engine.base import Batch, BlockPair
from tetribench.engine.hf.cache import TorchKVPool, runs


class HostMemory:
    """Room for `num_blocks` blocks of `pool` in the host's memory: pinned where the pool lies on a GPU, so that copies
    are direct and are ordered with the forward passes by the GPU's stream."""

    def __init__(self, pool: TorchKVPool, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._pool = pool
        shape = (num_blocks, *pool.memory.shape[1:])
        # zeros: all of it is touched now, so that no swap pays for a page fault
        self._memory = torch.zeros(shape, dtype=pool.memory.dtype, pin_memory=pool.memory.is_cuda)

    def swap(self, batch: Batch) -> None:
        """The copies that `batch` begins with, out before in."""
        device = self._pool.memory
        for source, target, length in runs(*_both(batch.swap_out)):
            self._check(source, target, length)
            self._memory[target : target + length].copy_(device[source : source + length], non_blocking=True)
        for target, source, length in runs(*_both(batch.swap_in)):
            self._check(target, source, length)
            device[target : target + length].copy_(self._memory[source : source + length], non_blocking=True)

    def _check(self, device_block: int, host_block: int, length: int) -> None:
        assert device_block >= 0 and device_block + length <= self._pool.num_blocks
        assert host_block >= 0 and host_block + length <= self.num_blocks


def _both(pairs: SequenceOf[BlockPair]) -> tuple[list[int], list[int]]:
    return [device_block for device_block, _ in pairs], [host_block for _, host_block in pairs]
