"""What becomes of a sequence that must give up its memory, and how it comes back (paper section 3.4, vLLM)."""

from collections import deque
from collections.abc import Iterator, Set
from enum import Enum
from typing import Any

from tetribench.core.sequence import Sequence
from tetribench.engine.base import BlockPair, EngineInfo
from tetribench.kv.blocks import BlockAllocator


class Preemption(Enum):
    """How a preempted sequence gets its KV back."""

    recompute = "recompute"
    """Its KV is dropped; prompt and response so far are prefilled again."""
    swap = "swap"
    """Its KV is copied to host memory and, when there is room, back. With the host memory full it is recomputed."""


class PreemptedQueue:
    """Sequences without device memory, in the order in which they come back: the earliest admission first.

    A swapped sequence keeps its `num_computed`; until it is back a stand-in holds its blocks in host memory. The copies
    are the engine's: `take_swaps` hands them over, to be carried out before the coming forward pass, those out first.
    In one iteration a scheduler evicts before it brings back: the host block that one sequence leaves could be the
    next one's, and would be overwritten before it is read.
    """

    def __init__(self, preemption: Preemption, kv: BlockAllocator, info: EngineInfo) -> None:
        self._kv = kv
        self._block_bytes = info.block_bytes
        self._host: BlockAllocator | None = None
        if preemption is Preemption.swap:
            self._host = BlockAllocator(num_blocks=info.num_host_blocks, block_size=info.block_size)
        self._order: deque[Sequence] = deque()
        self._stand_ins: dict[Sequence, Sequence] = {}
        self._outs: list[BlockPair] = []
        self._ins: list[BlockPair] = []

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._order)

    @property
    def first(self) -> Sequence:
        return self._order[0]

    def evict(self, victim: Sequence) -> None:
        """Take the device memory of `victim`, the member admitted last, and put it before all that wait here."""
        assert not self._ins, "evicted a sequence after another was brought back in the same iteration"
        num_computed, device_ids = victim.num_computed, victim.block_ids
        self._kv.release(victim)
        self._order.appendleft(victim)
        stand_in = Sequence(victim.request, victim.predicted)
        if self._host is not None and self._host.can_hold(stand_in, num_computed):
            self._host.extend(stand_in, num_computed)
            self._stand_ins[victim] = stand_in
            victim.num_computed = num_computed
            # a block beyond the computed tokens holds nothing yet
            self._outs += zip(device_ids, stand_in.block_ids, strict=False)

    def details(self, victim: Sequence) -> dict[str, Any]:
        """What the event log says of an eviction; `num_bytes` is what goes to host memory."""
        stand_in = self._stand_ins.get(victim)
        how = Preemption.recompute if stand_in is None else Preemption.swap
        num_blocks = 0 if stand_in is None else len(stand_in.block_ids)
        return {"how": how.value, "num_tokens": victim.num_tokens, "num_bytes": num_blocks * self._block_bytes}

    def bring_back(self) -> Sequence:
        """Give the first in line device blocks for all of its tokens, for which there must be room.

        A sequence whose KV comes back with it has one token not yet computed, as every decoding sequence has; one that
        must be recomputed has none computed.
        """
        sequence = self._order.popleft()
        self._kv.extend(sequence, sequence.num_tokens)
        stand_in = self._stand_ins.pop(sequence, None)
        if stand_in is not None:
            assert self._host is not None
            self._ins += zip(sequence.block_ids, stand_in.block_ids, strict=False)
            self._host.release(stand_in)
        return sequence

    def forget(self, dropped: Set[Sequence]) -> None:
        """Those of `dropped` that wait here do not come back."""
        assert not self._outs and not self._ins, "forgot a sequence between its eviction and its copy"
        self._order = deque(one for one in self._order if one not in dropped)
        for sequence in [one for one in self._stand_ins if one in dropped]:
            assert self._host is not None
            self._host.release(self._stand_ins.pop(sequence))

    def take_swaps(self) -> tuple[list[BlockPair], list[BlockPair]]:
        """The copies out and in that the coming iteration begins with."""
        outs, ins = self._outs, self._ins
        self._outs, self._ins = [], []
        return outs, ins

    def check(self) -> None:
        """Invariant: every host block is free or belongs to one sequence that waits here."""
        assert self._stand_ins.keys() <= set(self._order), "host memory is held for a sequence that is not preempted"
        if self._host is not None:
            self._host.check(list(self._stand_ins.values()))
