"""Parts of the KV memory as one, as links see it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.hf.driver import MODELS
from tetribench.engine.base import Part
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.parallel.pool import PoolOfRanks
from tetribench.engine.spans import Span, Spans, loads, packed, spans

NUM_BLOCKS = 6
SHARE = MODELS["opt"].shape().share(2)


def new_pool(is_filled: bool) -> PoolOfRanks:
    parts = [TorchKVPool.allocate(NUM_BLOCKS, 4, SHARE, torch.device("cpu"), torch.float32) for _ in range(2)]
    for number, part in enumerate(parts):
        if is_filled:
            part.memory.copy_(torch.arange(part.memory.numel()).view(part.memory.shape) + 0.5 * number)
    return PoolOfRanks(parts, [parts[1].handle()])


def assert_moved(source: PoolOfRanks, target: PoolOfRanks, source_ids: list[int], target_ids: list[int]) -> None:
    for one, other in zip(source.parts, target.parts, strict=True):
        expected = torch.zeros_like(one.memory)
        for source_id, target_id in zip(source_ids, target_ids, strict=True):
            expected[target_id] = one.memory[source_id]
        assert torch.equal(other.memory, expected)


ids = st.permutations(range(NUM_BLOCKS))


@settings(max_examples=30, deadline=None)
@given(source_ids=ids, target_ids=ids, size=st.integers(0, NUM_BLOCKS))
def test_a_copy_reaches_every_part(source_ids: list[int], target_ids: list[int], size: int) -> None:
    source, target = new_pool(True), new_pool(False)
    source.copy_to(source.attach(target.handle()), spans(source_ids[:size], target_ids[:size], source.block_bytes))
    assert_moved(source, target, source_ids[:size], target_ids[:size])


@settings(max_examples=30, deadline=None)
@given(source_ids=ids, target_ids=ids, size=st.integers(1, NUM_BLOCKS), limit=st.integers(500, 20_000))
def test_bytes_by_way_of_a_buffer_arrive_wherever_they_are_cut(
    source_ids: list[int], target_ids: list[int], size: int, limit: int
) -> None:
    """At the receiver they are cut once more, where it wants."""
    source, target = new_pool(True), new_pool(False)
    buffer = memoryview(bytearray(limit))
    for load in loads(spans(source_ids[:size], target_ids[:size], source.block_bytes), limit):
        into, out = packed(load)
        source.gather(buffer, into)
        for start, to, num_bytes in out:
            first = num_bytes // 3
            halves = [Span(start, to, first), Span(start + first, to + first, num_bytes - first)]
            target.scatter(buffer, Spans.of(half for half in halves if half.num_bytes))
    assert_moved(source, target, source_ids[:size], target_ids[:size])


def test_one_layer_of_a_block_is_one_layer_of_each_part() -> None:
    source, target = new_pool(True), new_pool(False)
    layer_bytes = source.block_bytes // 2
    source.copy_to(target, spans([3], [1], source.block_bytes, Part(layer_bytes, layer_bytes)))
    for one, other in zip(source.parts, target.parts, strict=True):
        expected = torch.zeros_like(one.memory)
        expected[1, 1] = one.memory[3, 1]
        assert torch.equal(other.memory, expected)
