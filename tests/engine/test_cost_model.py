from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support import sequence
from tetribench.core.clock import VirtualClock, run_virtual
from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import Model

CONF = Path(__file__).parent.parent.parent / "conf"

PREFILL_TOK_PER_S = {8: 279, 16: 454, 32: 872, 64: 1398, 128: 2030, 256: 2759, 512: 3565, 1024: 3570}
DECODE_TOK_PER_S = {2: 73, 4: 126, 8: 239, 16: 358, 32: 661, 64: 928, 128: 1142, 256: 1345, 512: 1434}
"""TetriInfer (arXiv 2401.11181) figures 2a and 2b, read off: OPT-13B on two V100."""


def option(path: str) -> dict[str, Any]:
    found = yaml.safe_load((CONF / f"{path}.yaml").read_text())
    del found["defaults"]
    assert isinstance(found, dict)
    return found


def v100() -> Hardware:
    return Hardware(**option("hardware/v100_tp2"))


def paper() -> CostModel:
    return CostModel(Model(**option("model/opt_13b")).shape(), v100())


def round_numbers(**changes: Any) -> Hardware:
    """One second each: 0.5 s overhead, 1 byte and 1 operation a nanosecond."""
    numbers: dict[str, Any] = {"memory_bytes": 1e9, "overhead_s": 0.5, "bytes_per_s": 1e9, "flops_per_s": 1e9}
    return Hardware(
        **({"name": "round", "source": "", **numbers, "copy_bytes_per_s": 1e9, "host_bytes_per_s": 1e9} | changes)
    )


def small() -> Model:
    return Model(name="small", num_layers=2, hidden_size=4, ffn_size=8, num_heads=2, num_kv_heads=1, vocab_size=10)


def chunk(start: int, num_tokens: int, id: int = 0, prompt: int | None = None) -> PrefillChunk:
    return PrefillChunk(sequence(id, prompt or start + num_tokens), start, num_tokens)


def decodes(num: int, context: int = 100) -> list[Sequence]:
    return [sequence(id, context - 1, produced=1) for id in range(num)]


def test_an_iteration_by_hand() -> None:
    """A chunk of 3 tokens after 5, and two decodes of 10 and 20 tokens."""
    shape = small().shape()
    hardware = round_numbers(per_sequence_s=0.125)
    batch = Batch(prefill=[chunk(5, 3)], decode=[*decodes(1, 10), *decodes(1, 20)], num_padding_tokens=4)
    num_scores = 6 + 7 + 8 + 10 + 20
    flops = (3 + 2 + 4) * 2 * shape.num_parameters + num_scores * 4 * 2 * 2 * 2
    kv_bytes = (8 + 10 + 20) * 2 * 2 * 1 * 2 * 2
    expected = 0.5 + (2 * shape.num_parameters + kv_bytes + flops) / 1e9 + 2 * 0.125
    assert CostModel(shape, hardware).seconds(batch) == pytest.approx(expected, rel=1e-12)


def test_chunks_of_a_prompt_cost_the_arithmetic_of_the_whole_prompt() -> None:
    """All that cutting adds is the fixed part and the keys read again."""
    cost = CostModel(small().shape(), round_numbers(overhead_s=0.0, bytes_per_s=1e30))
    whole = cost.seconds(Batch(prefill=[chunk(0, 100)]))
    cut = sum(cost.seconds(Batch(prefill=[chunk(start, 20, prompt=100)])) for start in range(0, 100, 20))
    assert cut == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("num_tokens", PREFILL_TOK_PER_S)
def test_prefill_speed_is_the_papers(num_tokens: int) -> None:
    seconds = paper().seconds(Batch(prefill=[chunk(0, num_tokens)]))
    assert num_tokens / seconds == pytest.approx(PREFILL_TOK_PER_S[num_tokens], rel=0.13)


@pytest.mark.parametrize("num_decodes", DECODE_TOK_PER_S)
def test_decode_speed_is_the_papers(num_decodes: int) -> None:
    seconds = paper().seconds(Batch(decode=decodes(num_decodes)))
    assert num_decodes / seconds == pytest.approx(DECODE_TOK_PER_S[num_decodes], rel=0.13)


def test_a_chunk_of_512_takes_what_it_took_in_the_papers_runs() -> None:
    assert paper().seconds(Batch(prefill=[chunk(0, 512)])) == pytest.approx(0.152, rel=0.05)


@pytest.mark.parametrize(
    ("num_light_prefills", "num_heavy_prefills", "num_decodes", "expected_s"),
    [
        (16, 0, 0, 0.106),
        (64, 0, 0, 0.333),
        (1, 3, 0, 0.413),
        (32, 1, 0, 0.301),
        (0, 0, 1, 0.0268),
        (31, 0, 1, 0.185),
        (0, 3, 1, 0.383),
        (1, 0, 31, 0.059),
        (0, 1, 63, 0.190),
    ],
)
def test_interference_comes_out_without_being_fitted(
    num_light_prefills: int, num_heavy_prefills: int, num_decodes: int, expected_s: float
) -> None:
    """The paper's figures 3 and 4: prompts of 18 and of 512 tokens, and decodes, in one iteration."""
    prompts = [18] * num_light_prefills + [512] * num_heavy_prefills
    prefill = [chunk(0, prompt, id=1000 + id) for id, prompt in enumerate(prompts)]
    assert paper().seconds(Batch(prefill, decodes(num_decodes, 50))) == pytest.approx(expected_s, rel=0.15)


@given(st.integers(1, 600), st.integers(0, 600), st.integers(0, 40), st.integers(1, 600), st.integers(0, 50))
def test_more_work_never_takes_less_time(
    num_tokens: int, start: int, num_decodes: int, context: int, num_padding_tokens: int
) -> None:
    cost = paper()

    def seconds(tokens: int, begin: int, sequences: int, length: int, padding: int) -> float:
        batch = Batch([chunk(begin, tokens, id=99)], decodes(sequences, length + 1), num_padding_tokens=padding)
        return cost.seconds(batch)

    sizes = [num_tokens, start, num_decodes, context, num_padding_tokens]
    base = seconds(*sizes)
    for index in range(5):
        more = [size + (position == index) for position, size in enumerate(sizes)]
        assert seconds(*more) >= base


def test_the_engine_sleeps_and_yields_a_token_for_everyone_who_has_one_due() -> None:
    clock = VirtualClock()
    factory = CostModelFactory(model=small(), hardware=round_numbers())
    engine = factory.build(clock, None)
    batch = Batch(prefill=[chunk(0, 4, id=1), chunk(0, 4, id=2, prompt=9)], decode=[sequence(3, 5, produced=1)])
    assert run_virtual(clock, engine.run(batch)) == {1: 0, 3: 0}
    assert clock.now() == CostModel(small().shape(), round_numbers()).seconds(batch)
    assert engine.pool is None and engine.info.copy_bytes_per_s == 1e9
    engine.close()


def test_swaps_come_before_the_pass_at_the_speed_of_the_host() -> None:
    """Blocks of 16 tokens of 8 bytes; half a gigabyte a second."""
    hardware = round_numbers(host_bytes_per_s=0.5e9)
    swapping = Batch(decode=decodes(1), swap_out=[(0, 0), (1, 1)], swap_in=[(2, 2)])
    for batch, pass_s in [
        (swapping, CostModel(small().shape(), hardware).seconds(swapping)),
        (Batch(swap_out=swapping.swap_out, swap_in=swapping.swap_in), 0.0),
    ]:
        clock = VirtualClock()
        run_virtual(clock, CostModelFactory(model=small(), hardware=hardware).build(clock, None).run(batch))
        assert clock.now() == pytest.approx(pass_s + 3 * 16 * small().shape().kv_bytes_per_token(2) / 0.5e9, rel=1e-12)


def test_host_memory_is_there_for_those_that_ask() -> None:
    block_bytes = 16 * small().shape().kv_bytes_per_token(2)
    factory = CostModelFactory(model=small(), hardware=round_numbers(), host_memory_gib=5.5 * block_bytes / 2**30)
    assert factory.info().num_host_blocks == 0
    assert factory.with_host_memory().info().num_host_blocks == 5
    assert factory.num_host_blocks == 0, "the engine that was asked is another one"


def test_nowhere_to_swap_to_is_refused() -> None:
    factory = CostModelFactory(model=small(), hardware=round_numbers(), host_memory_gib=0.0)
    with pytest.raises(ValueError, match=r"^engine.host_memory_gib=0: decode.preemption=swap needs at least one block"):
        factory.with_host_memory()


def test_layers_end_at_equal_fractions_of_an_iteration() -> None:
    clock = VirtualClock()
    engine = CostModelFactory(model=small(), hardware=round_numbers()).build(clock, None)
    told: list[tuple[int, float]] = []
    run_virtual(clock, engine.run(Batch(prefill=[chunk(0, 4)]), lambda layer: told.append((layer, clock.now()))))
    seconds = CostModel(small().shape(), round_numbers()).seconds(Batch(prefill=[chunk(0, 4)]))
    assert told == [(0, seconds / 2), (1, seconds)] and clock.now() == seconds


def test_kv_memory_is_what_the_weights_leave_of_the_device() -> None:
    model, hardware = small(), round_numbers(memory_bytes=100_000.0)
    factory = CostModelFactory(model=model, hardware=hardware, memory_share=0.5, block_size=4)
    weights = 2 * model.shape().num_parameters
    assert factory.num_blocks() == int((50_000 - weights) // (4 * model.shape().kv_bytes_per_token(2)))


def test_kv_memory_may_be_given_by_the_option_or_by_the_profile() -> None:
    block_bytes = 16 * small().shape().kv_bytes_per_token(2)
    profile = round_numbers(kv_memory_gib=8 * block_bytes / 2**30)
    assert CostModelFactory(model=small(), hardware=profile).num_blocks() == 8
    assert CostModelFactory(model=small(), hardware=profile, kv_memory_gib=3 * block_bytes / 2**30).num_blocks() == 3


@pytest.mark.parametrize("kv_memory_gib", [2.0, 1e-9])
def test_memory_that_does_not_fit_is_refused_before_anything_starts(kv_memory_gib: float) -> None:
    factory = CostModelFactory(model=small(), hardware=round_numbers(), kv_memory_gib=kv_memory_gib)
    with pytest.raises(ValueError, match=r"engine.kv_memory_gib=.*must be at most that and at least one block"):
        factory.sized(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_size": 0}, r"engine.block_size=0: must be at least 1"),
        ({"kv_memory_gib": 0.0}, r"engine.kv_memory_gib=0.0: must be positive"),
        ({"host_memory_gib": -1.0}, r"engine.host_memory_gib=-1.0: must not be negative"),
        ({"memory_share": 0.0}, r"engine.memory_share=0.0: must be above 0"),
        ({"memory_share": 1.5}, r"engine.memory_share=1.5: must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CostModelFactory(model=small(), hardware=round_numbers(), **changes)


def test_the_facts_of_the_engine() -> None:
    factory = CostModelFactory(model=Model(**option("model/opt_13b")), hardware=v100())
    assert factory.sized(4) is factory
    info = factory.info()
    assert (info.num_devices, info.dtype) == (2, "16 bit")
    assert (info.block_bytes, info.max_context_tokens) == (16 * 819_200, 2048)
