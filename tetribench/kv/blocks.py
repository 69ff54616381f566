"""Paged KV memory as block ids; no tensors here (vLLM's paging, paper section 3.4)."""

from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div


class BlockAllocator:
    """Hands out `num_blocks` blocks of `block_size` tokens. Every block is free or held by exactly one sequence."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"KV memory needs at least one block of one token, got {num_blocks} of {block_size}")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    @property
    def num_free_tokens(self) -> int:
        return len(self._free) * self.block_size

    @property
    def num_total_tokens(self) -> int:
        return self.num_blocks * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens`."""
        return ceil_div(num_tokens, self.block_size)

    def can_hold(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether `sequence` could be extended to `num_tokens` now."""
        return self.blocks_for(num_tokens) - len(sequence.block_ids) <= len(self._free)

    def extend(self, sequence: Sequence, num_tokens: int) -> None:
        """Give `sequence` the blocks it lacks to hold `num_tokens`; `can_hold` must be true."""
        block_ids, free = sequence.block_ids, self._free
        num_lacking = -(-num_tokens // self.block_size) - len(block_ids)
        assert num_lacking <= len(free), "extended a sequence without asking can_hold"
        if num_lacking > 0:
            block_ids += free[: -num_lacking - 1 : -1]
            del free[-num_lacking:]

    def release(self, sequence: Sequence) -> None:
        """Take back all blocks of `sequence`, whose KV is lost."""
        self._free.extend(reversed(sequence.block_ids))
        sequence.block_ids = []
        sequence.num_computed = 0
        assert len(self._free) <= self.num_blocks, "released a block twice"

    def check(self, holders: list[Sequence]) -> None:
        """Invariant: free and held blocks together are all blocks, each once. For tests and idle instances."""
        held = [block for sequence in holders for block in sequence.block_ids]
        assert sorted(held + self._free) == list(range(self.num_blocks)), "a KV block is lost or held twice"
