import multiprocessing
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.model import Model
from tetribench.engine.spans import spans

SHAPE = Model(name="small", num_layers=2, hidden_size=8, num_heads=2, num_kv_heads=1).shape()


def new_pool(num_blocks: int, fill: float | None = None) -> TorchKVPool:
    pool = TorchKVPool.allocate(num_blocks, 4, SHAPE, torch.device("cpu"), torch.float32)
    if fill is None:
        pool.memory.copy_(torch.arange(pool.memory.numel()).view(pool.memory.shape))
    else:
        pool.memory.fill_(fill)
    return pool


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_copy_moves_the_named_blocks_and_no_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 12))
    source_ids = data.draw(st.permutations(range(12)))[:size]
    target_ids = data.draw(st.permutations(range(12)))[:size]
    if data.draw(st.booleans()):
        source_ids, target_ids = sorted(source_ids), sorted(target_ids)
    source, target = new_pool(12), new_pool(12, fill=-1.0)
    source.copy_to(target, spans(source_ids, target_ids, source.block_bytes))
    expected = torch.full_like(target.memory, -1.0)
    for one, other in zip(source_ids, target_ids, strict=True):
        expected[other] = source.memory[one]
    assert torch.equal(target.memory, expected)


def test_a_block_outside_the_pool_or_the_scratch_block_is_refused() -> None:
    source, target = new_pool(3), new_pool(3)
    for source_id, target_id in ((3, 0), (0, 3), (-1, 0)):
        with pytest.raises(AssertionError):
            source.copy_to(target, spans([source_id], [target_id], source.block_bytes))


def test_block_bytes_are_those_of_the_shape() -> None:
    pool = new_pool(5)
    assert pool.block_bytes == SHAPE.kv_bytes_per_token(4) * 4
    assert (pool.num_blocks, pool.scratch_block, pool.block_size) == (5, 5, 4)


def test_a_pool_of_this_process_is_itself() -> None:
    pool = new_pool(2)
    assert new_pool(1).attach(pool.handle()) is pool


def write_from_another_process(handle: bytes, target_ids: list[int]) -> None:
    mine = new_pool(6, fill=2.5)
    mine.copy_to(mine.attach(handle), spans(range(len(target_ids)), target_ids, mine.block_bytes))


def test_another_process_writes_into_the_pool() -> None:
    pool = new_pool(8, fill=0.0)
    target_ids = [5, 6, 1]
    child = multiprocessing.get_context("spawn").Process(
        target=write_from_another_process, args=(pool.handle(), target_ids)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    written = [block for block in range(9) if bool((pool.memory[block] == 2.5).all())]
    assert written == sorted(target_ids)
    assert float(pool.memory.sum()) == 2.5 * 3 * pool.memory[0].numel()


def test_the_memory_is_gone_with_the_pool() -> None:
    import gc
    from pathlib import Path

    def open_pools() -> int:
        return sum("tetribench-kv" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists())

    gc.collect()
    before = open_pools()
    pool = new_pool(random.randrange(2, 4))
    assert open_pools() == before + 1
    del pool
    gc.collect()
    assert open_pools() == before
