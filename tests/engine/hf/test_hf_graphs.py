"""Recorded decode passes, with calls in place of CUDA graphs: what is chosen, filled, written and answered."""

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.hf.driver import MODELS, Driver, graphs_of, spy_on_replays, tiny_engine
from tetribench.core.sequence import Sequence
from tetribench.core.units import GIB, MIB
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.backend import PagedRows
from tetribench.engine.hf.attention.sdpa import SdpaBackend
from tetribench.engine.hf.graphs import DecodeGraphs, Run, buckets, record_call
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model

MAX_SEQUENCES = 20

MakeDriver = Callable[[HFEngine], Driver]


@pytest.fixture(scope="module")
def replaying(model: Model, make_driver: MakeDriver) -> Driver:
    return make_driver(
        HFEngine(model=model, device=Device.cpu, kv_memory_gib=16 * MIB / GIB, graph_sequences=MAX_SEQUENCES)
    )


def sequences_of(driver: Driver, num_sequences: int, num_new: int) -> list[Sequence]:
    """Prompts of 1 to 90 tokens, the same for every driver."""
    rng = random.Random(5)
    lengths = [1, 16, 90, *(rng.randrange(1, 90) for _ in range(num_sequences))][:num_sequences]
    prompts = [[rng.randrange(512) for _ in range(length)] for length in lengths]
    return [driver.sequence(i, prompt, num_new) for i, prompt in enumerate(prompts)]


@given(st.integers(1, 600))
def test_every_batch_up_to_the_largest_has_a_bucket_that_is_not_much_larger(max_sequences: int) -> None:
    sizes = buckets(max_sequences)
    assert sizes == sorted(set(sizes)) and sizes[-1] == max_sequences
    for num_rows in range(1, max_sequences + 1):
        size = min(size for size in sizes if size >= num_rows)
        assert size - num_rows < max(min(num_rows, 16), 1)


@pytest.mark.parametrize(("num_sequences", "bucket"), [(1, 1), (3, 4), (8, 8), (9, 16), (17, 20), (20, 20)])
def test_tokens_are_those_of_passes_that_are_not_recorded(
    driver: Driver, replaying: Driver, monkeypatch: pytest.MonkeyPatch, num_sequences: int, bucket: int
) -> None:
    seen = spy_on_replays(graphs_of(replaying), monkeypatch)
    outputs = []
    for one in (driver, replaying):
        sequences = sequences_of(one, num_sequences, 5)
        outputs.append(one.finish(sequences, 4096))
        one.give_back(sequences)
    assert outputs[0] == outputs[1]
    assert seen == [bucket] * 4, "the first token is the prefill's"


def test_a_larger_batch_and_one_with_a_chunk_or_padding_run_as_they_are(
    driver: Driver, replaying: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_replays(graphs_of(replaying), monkeypatch)
    outputs = []
    for one in (driver, replaying):
        sequences = sequences_of(one, MAX_SEQUENCES + 1, 3)
        outputs.append(one.finish(sequences, 4096))
        one.give_back(sequences)
    assert outputs[0] == outputs[1] and seen == []
    decode, prompt = Batch(decode=sequences[:1]), PrefillChunk(sequences[1], 0, 1)
    graphs = graphs_of(replaying)
    assert graphs.covers(decode)
    assert not graphs.covers(Batch(decode=decode.decode, prefill=[prompt]))
    assert not graphs.covers(Batch(decode=decode.decode, num_padding_tokens=1))
    assert not graphs.covers(Batch()) and not graphs.covers(Batch(num_padding_tokens=2))


def test_rows_that_fill_up_a_bucket_write_to_no_block_of_anyone(driver: Driver, replaying: Driver) -> None:
    """Three sequences in a bucket of four: their own keys and values come out as without a graph."""
    kept = []
    for one in (driver, replaying):
        pool = one.runner.pool
        sequences = sequences_of(one, 3, 6)
        others = torch.tensor(one.free_blocks)
        before = pool.memory[others].clone()
        one.finish(sequences, 4096)
        assert torch.equal(pool.memory[others], before), "a block of nobody was written"
        kept.append([computed(one, sequence) for sequence in sequences])
        one.give_back(sequences)
    for plain, replayed in zip(*kept, strict=True):
        torch.testing.assert_close(plain, replayed)


def computed(driver: Driver, sequence: Sequence) -> torch.Tensor:
    """Keys and values of the sequence's computed tokens, `[layers, 2, tokens, kv_heads, size]`."""
    blocks = driver.runner.pool.memory[torch.tensor(sequence.block_ids)]
    return blocks.permute(1, 2, 0, 3, 4, 5).flatten(2, 3)[:, :, : sequence.num_computed].clone()


def test_all_passes_read_and_write_the_same_buffers(model: Model, replaying: Driver) -> None:
    pool = replaying.runner.pool
    places: list[tuple[int, int]] = []

    def forward(input_ids: torch.Tensor, position_ids: torch.Tensor, paged: PagedRows) -> torch.Tensor:
        places.append((input_ids.data_ptr(), position_ids.data_ptr()))
        return torch.eye(8)[input_ids[0] % 8]

    graphs = DecodeGraphs(forward, SdpaBackend(pool, 512), pool, 512, 4, record_call)
    packer = replaying.runner._packer
    sequences = sequences_of(replaying, 4, 1)
    answers = []
    for num_rows in (4, 1, 3, 2):
        rows = packer.decode_rows(sequences[:num_rows])
        answers.append((graphs.run(rows), (rows.columns[0] % 8).tolist()))
    replaying.give_back(sequences)
    assert all(found == wanted for found, wanted in answers)
    assert len(places) == 3 + 4 and len(set(places)) == 1


def test_what_a_longer_batch_left_behind_is_not_read(replaying: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's row of a long sequence is used by a short one next, and by a row that fills up."""
    seen = spy_on_replays(graphs_of(replaying), monkeypatch)
    sequences = sequences_of(replaying, 4, 2)
    replaying.finish(sequences, 4096)
    graphs, packer, scratch = graphs_of(replaying), replaying.runner._packer, replaying.runner.pool.scratch_block
    with torch.inference_mode():
        graphs.run(packer.decode_rows(sequences))
        graphs.run(packer.decode_rows([sequences[0], sequences[1], sequences[0]]))
    replaying.give_back(sequences)
    table = graphs._block_table.device
    assert seen == [4, 4, 4]
    assert (table[2, 1:] == scratch).all() and (table[3] == scratch).all() and graphs._num_keys.device[3] == 1


def test_a_model_that_cannot_be_recorded_is_named_by_option(replaying: Driver) -> None:
    def fail(run: Run) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    pool = replaying.runner.pool
    with pytest.raises(
        ValueError, match=r"^engine.graph_sequences=4: .*\(operation not permitted.*capturing\); must be 0$"
    ):
        DecodeGraphs(replaying.runner._forward, SdpaBackend(pool, 512), pool, 512, 4, fail)


def test_a_replayed_engine_says_so(replaying: Driver) -> None:
    assert replaying.runner.info.graph_sequences == MAX_SEQUENCES


def test_a_cpu_replays_some_sequences_by_default(make_driver: MakeDriver) -> None:
    driver = make_driver(tiny_engine(MODELS["opt"]))
    has_kernels = driver.runner.info.attention == "native paged"
    assert driver.runner.info.graph_sequences == (64 if has_kernels else 0)
    assert (driver.runner._graphs is not None) == has_kernels
