"""Recorded prefill passes, any prompts, any contexts: on the CPU as lists of operators, and with calls in place of CUDA
graphs and interpreted kernels."""

import random
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from importlib.util import find_spec

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver, spy_on_replays
from tetribench.core.sequence import Sequence
from tetribench.core.units import GIB, MIB
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.chunk_graphs import NUM_SEQUENCES, ChunkGraphs
from tetribench.engine.hf.graphs import Run
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.engine.native.compiler import find_compiler

CHUNK_SIZE = 24

MakeDriver = Callable[[HFEngine], Driver]


@pytest.fixture(autouse=True)
def _quick_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("tetribench.engine.hf.runner.WARM_UP_TOKENS", 20)
    if find_spec("triton") is not None:
        monkeypatch.setattr("tetribench.engine.hf.attention.kernels.decode._ENOUGH_PROGRAMS", 8)


@pytest.fixture(scope="module")
def drivers() -> dict[str, Driver]:
    return {}


@pytest.fixture(params=[Attention.native, Attention.triton], ids=lambda attention: attention.value)
def replaying(
    model: Model, make_driver: MakeDriver, drivers: dict[str, Driver], request: pytest.FixtureRequest
) -> Driver:
    if request.param is Attention.triton:
        pytest.importorskip("triton", reason="the package triton is not installed (pip install 'tetribench[dev]')")
    elif find_compiler() is None:
        pytest.skip("there is no C compiler")
    name = f"{request.param} {model.name}"
    if name not in drivers:
        drivers[name] = make_driver(replayed(model, request.param))
    return drivers[name]


def replayed(model: Model, attention: Attention) -> HFEngine:
    return HFEngine(
        model=model,
        device=Device.cpu,
        attention=attention,
        graph_sequences=0,
        kv_memory_gib=16 * MIB / GIB,
        graph_chunk_tokens=CHUNK_SIZE,
    )


def graphs_of(driver: Driver) -> ChunkGraphs:
    assert driver.runner._chunk_graphs is not None
    return driver.runner._chunk_graphs


def chunked(sequences: SequenceOf[Sequence]) -> Batch | None:
    """The next pass over what is left of the prompts, first come first served, filled up with padding."""
    batch, left = Batch(), CHUNK_SIZE
    for sequence in sequences:
        num_tokens = min(left, sequence.request.num_prompt_tokens - sequence.num_computed)
        if num_tokens > 0:
            batch.prefill.append(PrefillChunk(sequence, sequence.num_computed, num_tokens))
            left -= num_tokens
    batch.num_padding_tokens = left
    return batch if batch.prefill else None


def prefill(driver: Driver, sequences: SequenceOf[Sequence]) -> None:
    while (batch := chunked(sequences)) is not None:
        driver.run(batch)


def prompts_of(*lengths: int) -> list[list[int]]:
    rng = random.Random(11)
    return [[rng.randrange(512) for _ in range(length)] for length in lengths]


def test_tokens_are_those_of_generate_wherever_prompts_are_cut(
    replaying: Driver,
    reference: Callable[[SequenceOf[int], int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contexts of 0 to 60 tokens, up to five pieces in a pass; the decodes after them read what they have written."""
    seen = spy_on_replays(graphs_of(replaying), monkeypatch)
    prompts = prompts_of(70, 3, 5, 4, 2, 40, 16)
    sequences = [replaying.sequence(id, prompt, 3) for id, prompt in enumerate(prompts)]
    prefill(replaying, sequences)
    assert seen == [1, 1, 2, 8, 1, 4]
    while any(len(sequence.output_ids) < 3 for sequence in sequences):
        replaying.run(Batch(decode=list(sequences)))
    replaying.give_back(sequences)
    assert [sequence.output_ids for sequence in sequences] == [reference(prompt, 3) for prompt in prompts]


def test_padding_is_written_to_no_block_of_anyone_and_stays_finite(replaying: Driver) -> None:
    pool = replaying.runner.pool
    sequences = [replaying.sequence(0, prompts_of(30)[0], 1)]
    others = torch.tensor(replaying.free_blocks)
    before = pool.memory[others].clone()
    prefill(replaying, sequences)
    assert torch.equal(pool.memory[others], before), "a block of nobody was written"
    assert torch.isfinite(pool.memory[pool.scratch_block]).all()
    replaying.give_back(sequences)


def test_only_passes_of_the_size_that_was_recorded_are_replayed(replaying: Driver) -> None:
    graphs = graphs_of(replaying)
    sequences = [replaying.sequence(id, prompt, 1) for id, prompt in enumerate(prompts_of(*[30] * 20))]
    one = PrefillChunk(sequences[0], 0, CHUNK_SIZE - 4)
    assert graphs.covers(Batch(prefill=[PrefillChunk(sequences[0], 0, CHUNK_SIZE)]))
    assert graphs.covers(Batch(prefill=[one], num_padding_tokens=4))
    assert not graphs.covers(Batch(prefill=[one], num_padding_tokens=3))
    assert not graphs.covers(Batch(prefill=[one], decode=[sequences[1]], num_padding_tokens=3))
    assert not graphs.covers(Batch(num_padding_tokens=CHUNK_SIZE)) and not graphs.covers(Batch())
    many = [PrefillChunk(sequence, 0, 1) for sequence in sequences[: NUM_SEQUENCES[-1]]]
    rest = CHUNK_SIZE - len(many)
    assert not graphs.covers(Batch(prefill=many, num_padding_tokens=rest)), "one piece too many, with the padding"
    assert graphs.covers(Batch(prefill=many[1:], num_padding_tokens=rest + 1))
    replaying.give_back(sequences)


def test_a_replayed_pass_tells_nothing_of_layers_to_who_waited_for_another(replaying: Driver) -> None:
    told: list[int] = []
    sequences = [replaying.sequence(id, prompt, 1) for id, prompt in enumerate(prompts_of(5, CHUNK_SIZE))]
    replaying.run(Batch(prefill=[PrefillChunk(sequences[0], 0, 5)], by_layer=True), told.append)
    assert told == [0, 1]
    replaying.run(Batch(prefill=[PrefillChunk(sequences[1], 0, CHUNK_SIZE)], by_layer=True), told.append)
    assert told == [0, 1]
    replaying.give_back(sequences)


def test_an_engine_says_what_it_replays_and_a_model_that_cannot_be_recorded_is_named(replaying: Driver) -> None:
    def fail(run: Run) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    runner = replaying.runner
    assert (runner.info.graph_chunk_tokens, runner.info.graph_sequences) == (CHUNK_SIZE, 0)
    backend = runner._packer.backend
    with pytest.raises(ValueError, match=r"^engine.graph_chunk_tokens=24: .*\(operation .*capturing\); must be 0$"):
        ChunkGraphs(runner._forward, backend, runner.pool, 512, 24, fail)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"graph_chunk_tokens": -1}, r"-1: must be at least 0"),
        ({"temperature": 0.5}, r"graphs decode greedily; must be 0 with engine.temperature=0.5"),
        ({"attention": Attention.sdpa}, r"sdpa plans each chunk on the host; must be 0"),
        ({"tensor_parallel": 2}, r"must be 0 with engine.tensor_parallel=2"),
    ],
)
def test_what_cannot_be_recorded_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^engine.graph_chunk_tokens=(8: .*)?{message}"):
        HFEngine(**({"model": MODELS["opt"], "graph_chunk_tokens": 8} | values))  # type: ignore[arg-type]


def test_on_the_cpu_it_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HFEngine(model=MODELS["opt"], device=Device.cpu, graph_chunk_tokens=8)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"^engine.graph_chunk_tokens=8: .*native, which .*compiler.*; must be 0$"):
        engine.sized(1)
