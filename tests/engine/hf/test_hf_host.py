import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.hf.driver import Driver, tiny_engine
from tests.engine.hf.test_hf_cache import new_pool
from tests.engine.hf.test_hf_runner import MakeDriver, Reference, prompts
from tetribench.core.units import GIB, MIB
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.host import HostMemory
from tetribench.engine.model import Model


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_swaps_move_the_named_blocks_and_no_other_those_out_first(data: st.DataObject) -> None:
    pool = new_pool(12)
    host = HostMemory(pool, 8)
    device, kept = pool.memory.clone(), host.flat.view(pool.memory.dtype).view(8, *pool.memory.shape[1:]).clone()
    for _ in range(3):
        batch = Batch()
        for pairs in (batch.swap_out, batch.swap_in):
            size = data.draw(st.integers(0, 8))
            sides = [data.draw(st.permutations(range(num)))[:size] for num in (12, 8)]
            if data.draw(st.booleans()):
                sides = [sorted(side) for side in sides]
            pairs += zip(*sides, strict=True)
        host.swap(batch)
        for device_block, host_block in batch.swap_out:
            kept[host_block] = device[device_block]
        for device_block, host_block in batch.swap_in:
            device[device_block] = kept[host_block]
        assert torch.equal(pool.memory, device) and torch.equal(host.flat, kept.view(-1).view(torch.uint8))


@pytest.mark.parametrize("pair", [(3, 0), (-1, 0), (0, 2), (0, -1)])
def test_a_block_outside_either_memory_or_the_scratch_block_is_refused(pair: tuple[int, int]) -> None:
    host = HostMemory(new_pool(3), 2)
    for batch in (Batch(swap_out=[pair]), Batch(swap_in=[pair])):
        with pytest.raises(AssertionError):
            host.swap(batch)


def swapping_driver(model: Model, make_driver: MakeDriver) -> Driver:
    engine = tiny_engine(model)
    engine.host_memory_gib = 4 * MIB / GIB
    return make_driver(engine.with_host_memory())


def test_a_response_goes_on_after_its_keys_were_in_host_memory(
    model: Model, make_driver: MakeDriver, reference: Reference
) -> None:
    """Out beside the decode of another, in with its own decode; its old blocks are wiped meanwhile."""
    driver = swapping_driver(model, make_driver)
    assert driver.runner.info.num_host_blocks * driver.runner.info.block_bytes == 4 * MIB
    asked = prompts([77, 40])
    sequence, other = (driver.sequence(i, prompt, 20) for i, prompt in enumerate(asked))
    driver.run(Batch(prefill=[PrefillChunk(sequence, 0, 77), PrefillChunk(other, 0, 40)]))
    driver.run(Batch(decode=[sequence, other]))
    host_blocks = list(range(len(sequence.block_ids)))[::-1]
    driver.run(Batch(decode=[other], swap_out=list(zip(sequence.block_ids, host_blocks, strict=True))))
    driver.runner.pool.memory[torch.tensor(sequence.block_ids)] = 0
    sequence.block_ids = driver.take_blocks(97)
    driver.run(Batch(decode=[sequence], swap_in=list(zip(sequence.block_ids, host_blocks, strict=True))))
    assert driver.finish([sequence, other], 512) == [reference(prompt, 20) for prompt in asked]


def test_a_batch_of_swaps_alone_yields_nothing(model: Model, make_driver: MakeDriver) -> None:
    driver = swapping_driver(model, make_driver)
    driver.runner.pool.memory[5] = 7.0
    assert driver.run(Batch(swap_out=[(5, 1)])) == {}
    assert driver.run(Batch(swap_in=[(2, 1)])) == {}
    assert bool((driver.runner.pool.memory[2] == 7.0).all())
