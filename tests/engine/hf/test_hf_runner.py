import asyncio
import itertools
import random
import threading
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.hf.driver import MODELS, Driver, tiny_engine
from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.attention.sdpa import DecodeGroup, SdpaPlan
from tetribench.engine.hf.schema import Device, DType, HFEngine
from tetribench.engine.model import Model
from tetribench.engine.native.compiler import find_compiler
from tetribench.engine.spans import spans

Reference = Callable[[SequenceOf[int], int], list[int]]
MakeDriver = Callable[[HFEngine], Driver]


def prompts(lengths: list[int], vocab_size: int = 512) -> list[list[int]]:
    rng = random.Random(3)
    return [[rng.randrange(vocab_size) for _ in range(length)] for length in lengths]


@pytest.fixture(scope="module")
def gathering(model: Model, make_driver: MakeDriver) -> Driver:
    """An engine that attends to gathered keys where `driver` may have something faster."""
    return make_driver(tiny_engine(model, attention=Attention.sdpa))


def decode_groups(driver: Driver, sequences: list[Sequence]) -> list[DecodeGroup]:
    plan = driver.runner._packer.pack(Batch(decode=sequences)).paged.plan
    assert isinstance(plan, SdpaPlan)
    return plan.decode


@pytest.mark.parametrize("chunk_tokens", [16, 512])
def test_mixed_batches_give_the_tokens_of_generate(driver: Driver, reference: Reference, chunk_tokens: int) -> None:
    asked = prompts([5, 16, 33, 70, 200, 1])
    sequences = [driver.sequence(i, prompt, 20) for i, prompt in enumerate(asked)]
    outputs = driver.finish(sequences, chunk_tokens)
    driver.give_back(sequences)
    assert outputs == [reference(prompt, 20) for prompt in asked]
    assert len({token for output in outputs for token in output}) > 30, "responses too alike to prove anything"


@pytest.mark.parametrize(("group_blocks", "waste_blocks"), [(16, 99), (999, 2), (16, 0)])
def test_many_ragged_sequences_are_gathered_in_several_groups(
    gathering: Driver, reference: Reference, monkeypatch: pytest.MonkeyPatch, group_blocks: int, waste_blocks: int
) -> None:
    asked = prompts([7 * i % 150 + 1 for i in range(40)])
    sequences = [gathering.sequence(i, prompt, 3) for i, prompt in enumerate(asked)]
    monkeypatch.setattr(gathering.runner._packer.backend, "_group_blocks", group_blocks)
    monkeypatch.setattr(gathering.runner._packer.backend, "_waste_blocks", waste_blocks)
    outputs = gathering.finish(sequences, 512)
    groups = decode_groups(gathering, sequences)
    gathering.give_back(sequences)
    assert outputs == [reference(prompt, 3) for prompt in asked]
    assert len(groups) > 3 and sum(group.stop - group.start for group in groups) == 40


def test_short_contexts_are_not_padded_to_a_long_one(gathering: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10, 2, 9 and 1 blocks, those that differ by at most two are gathered together."""
    sequences = [gathering.sequence(i, prompt, 1) for i, prompt in enumerate(prompts([160, 32, 144, 16]))]
    gathering.finish(sequences, 512)
    monkeypatch.setattr(gathering.runner._packer.backend, "_waste_blocks", 2)
    groups = decode_groups(gathering, sequences)
    gathering.give_back(sequences)
    assert [(group.start, group.stop) for group in groups] == [(0, 2), (2, 4)]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 59), max_size=6))
def test_any_split_into_chunks_gives_the_same_token(driver: Driver, reference: Reference, cuts: set[int]) -> None:
    (prompt,) = prompts([60])
    sequence = driver.sequence(0, prompt, 1)
    edges = [0, *sorted(cuts), 60]
    produced = [
        driver.run(Batch(prefill=[PrefillChunk(sequence, start, stop - start)]))
        for start, stop in itertools.pairwise(edges)
    ]
    driver.give_back([sequence])
    assert produced == [{}] * (len(edges) - 2) + [{0: reference(prompt, 1)[0]}]


def test_padding_rows_change_nothing(driver: Driver) -> None:
    pool = driver.runner.pool
    asked = prompts([40, 9])
    results = []
    for num_padding_tokens in (0, 37):
        sequences = [driver.sequence(i, prompt, 6) for i, prompt in enumerate(asked)]
        others = torch.tensor(driver.free_blocks)
        before = pool.memory[others].clone()
        outputs = driver.finish(sequences, 16, num_padding_tokens)
        assert torch.equal(pool.memory[others], before), "a block of nobody was written"
        kept = [pool.memory[torch.tensor(sequence.block_ids)].clone() for sequence in sequences]
        results.append((outputs, kept))
        driver.free_blocks += [block for sequence in reversed(sequences) for block in reversed(sequence.block_ids)]
    (plain, plain_kept), (padded, padded_kept) = results
    assert padded == plain
    for one, other in zip(plain_kept, padded_kept, strict=True):
        torch.testing.assert_close(one, other)


def test_padding_alone_and_nothing_at_all(driver: Driver) -> None:
    assert driver.run(Batch(num_padding_tokens=20)) == {}
    assert driver.run(Batch()) == {}


def test_recomputing_prompt_and_response_gives_the_same_next_token(driver: Driver, reference: Reference) -> None:
    (prompt,) = prompts([50])
    sequence = driver.sequence(0, prompt, 12)
    driver.finish([sequence], 512)
    sequence.output_ids[8:] = []
    sequence.num_computed = 0
    driver.give_back([sequence])
    sequence.block_ids = driver.take_blocks(64)
    driver.run(Batch(prefill=[PrefillChunk(sequence, 0, 30)]))
    driver.run(Batch(prefill=[PrefillChunk(sequence, 30, 28)]))
    driver.give_back([sequence])
    assert sequence.output_ids == reference(prompt, 9)


def test_a_layer_is_told_of_when_it_is_in_its_blocks_and_on_the_event_loop(driver: Driver) -> None:
    runner, (prompt,) = driver.runner, prompts([40])
    sequence = driver.sequence(0, prompt, 1)
    blocks = torch.tensor(sequence.block_ids[:2])  # full ones
    runner.pool.memory[blocks] = 0
    told: list[tuple[int, bool, torch.Tensor]] = []

    def on_layer(layer: int) -> None:
        here = threading.current_thread() is threading.main_thread()
        told.append((layer, here, runner.pool.memory[blocks, layer].clone()))

    driver.run(Batch(prefill=[PrefillChunk(sequence, 0, 40)], by_layer=True), on_layer)
    assert [(layer, here) for layer, here, _ in told] == [(layer, True) for layer in range(runner.info.num_layers)]
    for layer, _, written in told:
        assert written.any() and torch.equal(written, runner.pool.memory[blocks, layer])
    driver.give_back([sequence])


def test_decoding_goes_on_in_another_pool(
    model: Model, driver: Driver, reference: Reference, make_driver: MakeDriver
) -> None:
    other = make_driver(tiny_engine(model))
    (prompt,) = prompts([77])
    sequence = driver.sequence(0, prompt, 20)
    while len(sequence.output_ids) < 5:
        driver.run(Batch(decode=[sequence]) if sequence.output_ids else Batch(prefill=[PrefillChunk(sequence, 0, 77)]))
    there = other.take_blocks(97)
    peer = driver.runner.pool.attach(other.runner.pool.handle())
    driver.runner.pool.copy_to(peer, spans(sequence.block_ids, there, peer.block_bytes))
    driver.runner.pool.memory[torch.tensor(sequence.block_ids)] = 0
    driver.give_back([sequence])
    sequence.block_ids = there
    assert other.finish([sequence], 512) == [reference(prompt, 20)]


def test_the_cache_is_really_read(driver: Driver, reference: Reference) -> None:
    """Guards the tests above: were keys not read from the blocks, spoiling them would change nothing."""
    (prompt,) = prompts([77])
    sequence = driver.sequence(0, prompt, 8)
    driver.run(Batch(prefill=[PrefillChunk(sequence, 0, 77)]))
    driver.runner.pool.memory[sequence.block_ids[0]] = 1.0
    outputs = driver.finish([sequence], 512)
    driver.give_back([sequence])
    assert outputs != [reference(prompt, 8)]


def test_info_is_read_back(model: Model, driver: Driver) -> None:
    info = driver.runner.info
    fastest = "sdpa" if find_compiler() is None else "native"
    assert (info.device, info.dtype, info.attention) == ("cpu", "float32", f"{fastest} paged")
    assert {"fa3", "flashinfer", "triton"} <= set(info.attention_passed_over)
    assert (info.kv_copies_passed_over is None) == (find_compiler() is not None)
    assert info.num_blocks * info.block_bytes == 16 * 2**20
    assert info.block_bytes == driver.runner.pool.block_bytes == tiny_engine(model).kv_bytes_per_block()
    assert info.max_context_tokens == 512
    assert info.stop_token_ids == ()
    assert abs(info.num_parameters / model.shape().num_parameters - 1) < 0.05
    assert info.versions["torch"] == torch.__version__


def test_the_event_loop_runs_while_a_batch_does(driver: Driver) -> None:
    """Other tasks get their turns during a long chunk, which would block a loop that computed it itself."""
    (prompt,) = prompts([480])
    sequence = driver.sequence(0, prompt, 1)
    runner = driver.runner

    async def beats() -> int:
        count = 0
        running = asyncio.ensure_future(runner.run(Batch(prefill=[PrefillChunk(sequence, 0, 480)])))
        while not running.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert asyncio.run(beats()) > 3
    driver.give_back([sequence])


def test_low_precision_runs(make_driver: MakeDriver) -> None:
    engine = HFEngine(model=MODELS["llama"], device=Device.cpu, dtype=DType.bfloat16, kv_memory_gib=0.01)
    driver = make_driver(engine)
    assert driver.runner.info.dtype == "bfloat16"
    sequences = [driver.sequence(i, prompt, 5) for i, prompt in enumerate(prompts([40, 7]))]
    assert [len(output) for output in driver.finish(sequences, 16)] == [5, 5]
