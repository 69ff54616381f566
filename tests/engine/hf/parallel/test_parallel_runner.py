"""Two ranks, gloo between them: the tokens of one process and of `generate`, and an end with any of them."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver
from tests.processes import is_alive
from tetribench.core.clock import WallClock
from tetribench.core.units import GIB, MIB
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.parallel.followers import RankLost
from tetribench.engine.hf.parallel.runner import ParallelRunner
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.kv.links import Medium, Memory, Operation
from tetribench.kv.links.shared_memory import SharedMemory
from tetribench.kv.links.tcp import Tcp

pytestmark = pytest.mark.alone

Reference = Callable[[SequenceOf[int], int], list[int]]


def engine_of(model: Model, graph_sequences: int = 0) -> HFEngine:
    return HFEngine(
        model=model,
        device=Device.cpu,
        kv_memory_gib=16 * MIB / GIB,
        host_memory_gib=MIB / GIB,
        graph_sequences=graph_sequences,
        tensor_parallel=2,
    )


@pytest.fixture(scope="module")
def two_ranks(model: Model, make_driver: Callable[[HFEngine], Driver]) -> Driver:
    return make_driver(engine_of(model).with_host_memory())


def parallel(driver: Driver) -> ParallelRunner:
    assert isinstance(driver.engine, ParallelRunner)
    return driver.engine


def follower_of(engine: ParallelRunner) -> int:
    (process,) = engine._followers._processes
    return process.pid


def prompts(lengths: list[int]) -> list[list[int]]:
    rng = random.Random(3)
    return [[rng.randrange(512) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("chunk_tokens", [16, 512])
def test_tokens_are_those_of_one_process_and_of_generate(
    two_ranks: Driver, driver: Driver, reference: Reference, chunk_tokens: int
) -> None:
    asked = prompts([5, 16, 33, 70, 200, 1])
    outputs = []
    for one in (two_ranks, driver):
        sequences = [one.sequence(i, prompt, 20) for i, prompt in enumerate(asked)]
        outputs.append(one.finish(sequences, chunk_tokens, num_padding_tokens=3))
        one.give_back(sequences)
    assert outputs == [[reference(prompt, 20) for prompt in asked]] * 2


def test_every_rank_has_its_share(two_ranks: Driver, driver: Driver) -> None:
    engine, whole = parallel(two_ranks), driver.runner
    first, second = engine.pool.parts
    assert first.memory.shape == second.memory.shape
    assert first.memory.shape[4] * 2 == whole.pool.memory.shape[4], "half of the KV heads"
    assert (engine.info.num_devices, engine.info.block_bytes) == (2, whole.info.block_bytes)
    assert engine.info.num_blocks == whole.info.num_blocks
    own = dict(engine._own._model.named_modules())
    for name, layer in whole._model.named_modules():
        part = name.split(".")[-1]
        if part in ("q_proj", "k_proj", "v_proj", "fc1", "gate_proj", "up_proj"):
            assert (own[name].in_features, own[name].out_features * 2) == (layer.in_features, layer.out_features)
        elif part in ("out_proj", "o_proj", "fc2", "down_proj"):
            share = own[f"{name}.share"]
            assert (share.in_features * 2, share.out_features) == (layer.in_features, layer.out_features)
        else:
            shapes = [[one.shape for one in module.parameters(recurse=False)] for module in (own[name], layer)]
            assert shapes[0] == shapes[1]


def test_the_keys_of_both_ranks_are_those_of_one_process(two_ranks: Driver, driver: Driver) -> None:
    (prompt,) = prompts([48])
    kept = []
    for one in (two_ranks, driver):
        sequence = one.sequence(0, prompt, 1)
        one.run(Batch(prefill=[PrefillChunk(sequence, 0, 48)]))
        pools = [one.runner.pool] if one is driver else parallel(one).pool.parts
        kept.append(torch.cat([pool.memory[torch.tensor(sequence.block_ids[:3])] for pool in pools], dim=4))
        one.give_back([sequence])
    torch.testing.assert_close(kept[0], kept[1])


def test_a_layer_is_told_of_when_both_ranks_have_written_it(two_ranks: Driver) -> None:
    engine, (prompt,) = parallel(two_ranks), prompts([40])
    sequence = two_ranks.sequence(0, prompt, 1)
    blocks = torch.tensor(sequence.block_ids[:2])
    for part in engine.pool.parts:
        part.memory[blocks] = 0
    told: list[tuple[int, bool]] = []

    def on_layer(layer: int) -> None:
        told.append((layer, all(bool(part.memory[blocks, layer].any()) for part in engine.pool.parts)))

    two_ranks.run(Batch(prefill=[PrefillChunk(sequence, 0, 40)], by_layer=True), on_layer)
    two_ranks.give_back([sequence])
    assert told == [(0, True)], "the last layer is there on return"


def test_what_is_swapped_out_and_in_again_is_as_it_was(two_ranks: Driver, reference: Reference) -> None:
    (prompt,) = prompts([45])
    sequence = two_ranks.sequence(0, prompt, 6)
    two_ranks.run(Batch(prefill=[PrefillChunk(sequence, 0, 45)]))
    num_blocks = len(sequence.block_ids)
    two_ranks.run(Batch(swap_out=list(zip(sequence.block_ids, range(num_blocks), strict=True))))
    for part in parallel(two_ranks).pool.parts:
        part.memory[torch.tensor(sequence.block_ids)] = 0
    two_ranks.give_back([sequence])
    sequence.block_ids = two_ranks.take_blocks(45 + 6)
    two_ranks.run(Batch(swap_in=list(zip(sequence.block_ids, range(num_blocks), strict=True))))
    assert two_ranks.finish([sequence], 512) == [reference(prompt, 6)]
    two_ranks.give_back([sequence])


def test_decodes_are_replayed_by_both(make_driver: Callable[[HFEngine], Driver]) -> None:
    """On the CPU a replay is a call; were only one rank to make it, the sums would not meet."""
    outputs = []
    for graph_sequences in (0, 4):
        one = make_driver(engine_of(MODELS["llama"], graph_sequences))
        sequences = [one.sequence(i, prompt, 6) for i, prompt in enumerate(prompts([20, 3, 50]))]
        outputs.append(one.finish(sequences, 512))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("medium", [Memory(), Memory(operation=Operation.read), SharedMemory(), Tcp()])
def test_decoding_goes_on_on_the_ranks_of_another_instance(
    medium: Medium,
    make_driver: Callable[[HFEngine], Driver],
    loop: asyncio.Runner,
    two_ranks: Driver,
    reference: Reference,
) -> None:
    model = two_ranks_model(two_ranks)
    other = make_driver(engine_of(model))
    (prompt,) = prompts([77])
    sequence = two_ranks.sequence(0, prompt, 12)
    two_ranks.run(Batch(prefill=[PrefillChunk(sequence, 0, 77)]))
    there = other.take_blocks(77 + 12)
    here, target = two_ranks.engine, other.engine

    async def hand_over() -> int:
        assert here.pool is not None and target.pool is not None
        links = [medium.build(engine_pool, WallClock()) for engine_pool in (here.pool, target.pool)]
        for link in links:
            await link.open()
        links[0].connect({"other": links[1].handle()})
        try:
            return await links[0].move("other", sequence.block_ids, there)
        finally:
            for link in links:
                link.close()

    assert loop.run(hand_over()) == len(there) * here.info.block_bytes
    two_ranks.give_back([sequence])
    sequence.block_ids = there
    assert other.finish([sequence], 512) == [reference(prompt, 12)]


def two_ranks_model(driver: Driver) -> Model:
    """By which it was built."""
    is_opt = "opt" in type(parallel(driver)._own._model).__name__.lower()
    return MODELS["opt" if is_opt else "llama"]


@pytest.fixture
def lone() -> Iterator[ParallelRunner]:
    engine = engine_of(MODELS["opt"]).build(WallClock(), None)
    assert isinstance(engine, ParallelRunner)
    yield engine
    engine.close()
    assert not is_alive(follower_of(engine))


def test_a_rank_that_dies_idle_ends_the_watch(lone: ParallelRunner) -> None:
    async def main() -> None:
        watching = asyncio.create_task(lone.watch())
        await asyncio.sleep(0.05)
        assert not watching.done()
        os.kill(follower_of(lone), signal.SIGKILL)
        await asyncio.wait_for(watching, 10.0)

    with pytest.raises(RankLost, match=r"^rank 1 of engine.tensor_parallel=2 ended with code -9$"):
        asyncio.run(main())


def test_a_rank_that_dies_in_an_iteration_fails_it(lone: ParallelRunner) -> None:
    """It is stopped, so that the sum is waited for, and killed then."""
    one = Driver(lone, asyncio.Runner())
    sequence = one.sequence(0, [1, 2, 3], 1)
    follower = follower_of(lone)

    async def main() -> None:
        os.kill(follower, signal.SIGSTOP)
        running = asyncio.create_task(lone.run(Batch(prefill=[PrefillChunk(sequence, 0, 3)])))
        await asyncio.sleep(0.2)
        assert not running.done()
        os.kill(follower, signal.SIGKILL)
        await asyncio.wait_for(running, 10.0)

    with pytest.raises(RankLost, match=r"^rank 1 of engine.tensor_parallel=2 ended with code -9$"):
        asyncio.run(main())


def test_a_rank_that_does_not_come_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(RankLost, match=r"^rank 1 of engine.tensor_parallel=2 ended with code 1$"):
        engine_of(MODELS["opt"]).build(WallClock(), None)
