"""What the first rank tells the others is enough for the same forward pass."""

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.hf.driver import MODELS
from tests.support.builders import request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.sdpa import SdpaBackend
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.pack import Packer
from tetribench.engine.hf.parallel.frames import decode, encode

BLOCK_SIZE = 4
POOL = TorchKVPool.allocate(400, BLOCK_SIZE, MODELS["opt"].shape(), torch.device("cpu"), torch.float32)


@dataclass
class Maker:
    """Sequences with tokens and blocks that no other has, of prompts and responses in any proportion."""

    data: st.DataObject
    sequences: list[Sequence] = field(default_factory=list)

    def sequence(self, num_tokens: int) -> Sequence:
        number = len(self.sequences)
        num_prompt = self.data.draw(st.integers(1, num_tokens))
        tokens = [1000 * number + position for position in range(num_tokens)]
        asked = request(number, num_prompt, 99, prompt_ids=tuple(tokens[:num_prompt]))
        blocks = [40 * number + block for block in range(ceil_div(num_tokens, BLOCK_SIZE) + number % 3)]
        self.sequences.append(Sequence(asked, LengthRange(0, 1), blocks[::-1], output_ids=tokens[num_prompt:]))
        return self.sequences[-1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_packed_is_the_same(data: st.DataObject) -> None:
    maker, batch = Maker(data), Batch(num_padding_tokens=data.draw(st.integers(0, 3)))
    for num_tokens in data.draw(st.lists(st.integers(1, 60), max_size=4)):
        batch.decode.append(maker.sequence(num_tokens))
    for num_tokens in data.draw(st.lists(st.integers(1, 60), max_size=3)):
        start = data.draw(st.integers(0, num_tokens - 1))
        stop = data.draw(st.integers(start + 1, num_tokens))
        batch.prefill.append(PrefillChunk(maker.sequence(num_tokens), start, stop - start))
    batch.swap_out, batch.swap_in = [(1, 2)], [(3, 4), (5, 6)]
    told = decode(encode(batch, BLOCK_SIZE))
    assert (told.swap_out, told.swap_in) == ([(1, 2)], [(3, 4), (5, 6)])
    packer = Packer(POOL, SdpaBackend(POOL, 64))
    one, other = packer.pack(batch), packer.pack(told)
    for name in ("input_ids", "position_ids", "output_rows"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.output_positions == other.output_positions
    assert all(map(torch.equal, one.paged.plan.slots, other.paged.plan.slots))  # type: ignore[attr-defined]
    rows, same = packer.decode_rows(batch.decode), packer.decode_rows(told.decode)
    for name in ("columns", "num_keys", "block_table"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(same, name))
