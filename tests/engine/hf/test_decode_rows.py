"""Whatever happens to a batch between two iterations, what is carried over is what packing it anew would give."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import request
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.decode_rows import DecodePacker, DecodeRows
from tetribench.engine.model import Model

BLOCK_SIZE = 4


SHAPE = Model(name="m", num_layers=2, hidden_size=4, ffn_size=4, num_heads=1, num_kv_heads=1, vocab_size=8).shape()
POOL = TorchKVPool.allocate(500, BLOCK_SIZE, SHAPE, torch.device("cpu"), torch.float32)


def prompted(id: int, num_tokens: int) -> Request:
    return replace(request(id, num_tokens, 200), prompt_ids=tuple(100 * id + place for place in range(num_tokens)))


class Batch:
    """Sequences that decode, and blocks from a counter: no two are ever the same."""

    def __init__(self) -> None:
        self.members: list[Sequence] = []
        self.num_begun = self.num_blocks = 0

    def join(self, num_tokens: int) -> None:
        sequence = Sequence(request=prompted(self.num_begun, num_tokens), predicted=LengthRange(0, 1))
        self.num_begun += 1
        self.members.append(sequence)
        self.grow(sequence)

    def grow(self, sequence: Sequence, num_ahead: int = 0) -> None:
        """Blocks for all of its tokens, and some for later."""
        while len(sequence.block_ids) * BLOCK_SIZE < sequence.num_tokens + num_ahead:
            sequence.block_ids.append(self.num_blocks % 500)
            self.num_blocks += 1

    def step(self, num_ahead: int) -> None:
        for sequence in self.members:
            sequence.output_ids.append(1000 + sequence.num_tokens)
            self.grow(sequence, num_ahead)


def check(found: DecodeRows, decode: list[Sequence]) -> None:
    """Against the definition of each value."""
    assert found.request_ids == [sequence.request.id for sequence in decode]
    assert found.num_keys.tolist() == [sequence.num_tokens for sequence in decode]
    assert (found.columns.dtype, found.num_keys.dtype, found.block_table.dtype) == (
        np.dtype("int64"),
        np.dtype("int32"),
        np.dtype("int32"),
    )
    for row, sequence in enumerate(decode):
        position = sequence.num_tokens - 1
        block, offset = sequence.block_ids[position // BLOCK_SIZE], position % BLOCK_SIZE
        (token,) = sequence.token_ids(position, position + 1)
        assert found.columns[:, row].tolist() == [token, position, block * POOL.slots_per_block + offset]
        used = position // BLOCK_SIZE + 1
        assert found.block_table[row, :used].tolist() == sequence.block_ids[:used]
        assert (found.block_table[row, used:] == POOL.scratch_block).all()


STEP = st.tuples(
    st.sampled_from(["step", "step", "step", "step", "join", "leave", "swap", "moved", "again", "twice"]),
    st.integers(0, 30),
)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.lists(STEP, max_size=40))
def test_what_is_carried_over_is_what_packing_anew_gives(lengths: list[int], steps: list[tuple[str, int]]) -> None:
    batch, packer = Batch(), DecodePacker(POOL)
    for length in lengths:
        batch.join(length)
    check(packer.pack(batch.members), batch.members)
    for kind, number in steps:
        chosen = batch.members[number % len(batch.members)]
        match kind:
            case "join":
                batch.join(number + 1)
            case "leave" if len(batch.members) > 1:
                batch.members.remove(chosen)
            case "swap":  # out and back to other blocks
                chosen.block_ids = []
                batch.grow(chosen)
            case "moved":  # a single block is another one, in the same list
                chosen.block_ids[number % len(chosen.block_ids)] = 499
            case "again":  # in another order
                batch.members.append(batch.members.pop(0))
            case "twice":
                batch.step(0)
        if kind != "again":
            batch.step(num_ahead=number % 9)
        check(packer.pack(batch.members), batch.members)


def test_a_batch_that_goes_on_is_packed_once() -> None:
    """In 60 iterations the longest outgrows the room in the table once for every eight blocks."""
    batch, packer = Batch(), DecodePacker(POOL)
    for length in (3, 9):
        batch.join(length)
    tables = []
    for _ in range(60):
        check(packer.pack(batch.members), batch.members)
        tables.append(packer._columns)
        batch.step(0)
    assert len({id(one) for one in tables}) == 2
