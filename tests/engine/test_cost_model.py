from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import sequence
from tetribench.core.clock import VirtualClock, run_virtual
from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.cost_model import CostModel
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import Model
from tetribench.engine.sharing import Sharing

CONF = Path(__file__).parent.parent.parent / "conf"


def option(path: str) -> dict[str, Any]:
    found = yaml.safe_load((CONF / f"{path}.yaml").read_text())
    del found["defaults"]
    assert isinstance(found, dict)
    return found


def v100() -> Hardware:
    return Hardware(**option("hardware/v100_tp2"))


def paper_model() -> Model:
    return Model(**option("model/opt_13b"))


def paper() -> CostModel:
    return CostModel(paper_model().shape(), v100())


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
    num_scores = 6 + 7 + 8
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


def test_rooflines_meet_in_a_norm_and_prompts_below_saturation_are_slower() -> None:
    """Two prompts of 3 and 4 tokens and a decode of 10 tokens; a power of two, and a rate that is full at 20 tokens."""
    shape = small().shape()
    hardware = round_numbers(
        roofline_power=2.0,
        saturation_tokens=20.0,
        kv_bytes_per_s=5e8,
        attention_flops_per_s=2e8,
        per_prompt_s=0.25,
        per_sequence_s=0.125,
    )
    token_s = 2 * shape.num_parameters / 1e9
    memory_s = 0.5 + 2 * shape.num_parameters / 1e9
    scores_s = (6 + 10) * 4 * 2 * 2 * 2 / 2e8
    compute_s = (7 * token_s * 20 * token_s) ** 0.5 + token_s + scores_s
    kv_s = (3 + 4 + 10) * 2 * 2 * 1 * 2 * 2 / 5e8
    expected = (memory_s**2 + compute_s**2) ** 0.5 + kv_s + 2 * 0.25 + 0.125
    batch = Batch(prefill=[chunk(0, 3), chunk(0, 4, id=1)], decode=decodes(1, 10))
    assert CostModel(shape, hardware).seconds(batch) == pytest.approx(expected, rel=1e-12)


def test_only_a_single_token_does_without_the_cost_of_batching() -> None:
    plain, batching = (CostModel(small().shape(), round_numbers(batching_s=value)) for value in (0.0, 0.25))
    for batch, expected in [
        (Batch(decode=decodes(1)), 0.0),
        (Batch(decode=decodes(2)), 0.25),
        (Batch(prefill=[chunk(0, 1)]), 0.0),
        (Batch(prefill=[chunk(0, 2)]), 0.25),
        (Batch(prefill=[chunk(0, 1)], decode=decodes(1)), 0.25),
    ]:
        assert batching.seconds(batch) - plain.seconds(batch) == pytest.approx(expected)
    assert batching.decode_seconds(2, 200) == batching.seconds(Batch(decode=decodes(2)))
    assert batching.decode_seconds(1, 100) == batching.seconds(Batch(decode=decodes(1)))


def test_above_saturation_the_rate_is_full() -> None:
    numbers: dict[str, Any] = {"overhead_s": 0.0, "bytes_per_s": 1e30}
    slow = CostModel(small().shape(), round_numbers(saturation_tokens=64.0, **numbers))
    full = CostModel(small().shape(), round_numbers(**numbers))
    for num_tokens, times in [(16, 2.0), (64, 1.0), (200, 1.0)]:
        batch = Batch(prefill=[chunk(0, 1, prompt=2000)], num_padding_tokens=num_tokens - 1)
        assert slow.seconds(batch) / full.seconds(batch) == pytest.approx(times, rel=0.01)


def test_devices_that_share_an_instance_share_its_work_and_pay_for_all_reduces() -> None:
    """Of a layer's two all-reduces each moves 2 (n - 1) / n times the hidden states: here 2 layers of 4 values."""
    shape = small().shape()
    numbers: dict[str, Any] = {"kv_bytes_per_s": 5e8, "all_reduce_s": 0.01, "all_reduce_bytes_per_s": 1e6}
    batch = Batch(prefill=[chunk(5, 3)], decode=decodes(2, 10), num_padding_tokens=4)
    overhead_s = round_numbers().overhead_s
    alone_s = CostModel(shape, round_numbers(**numbers)).seconds(batch) - overhead_s
    shared_s = CostModel(shape, round_numbers(num_devices=4, **numbers)).seconds(batch) - overhead_s
    num_rows = 3 + 4 + 2
    all_reduces_s = 2 * 2 * (0.01 + 2 * 3 / 4 * num_rows * 4 * 2 / 1e6)
    assert shared_s == pytest.approx(alone_s / 4 + all_reduces_s, rel=1e-9)


@given(st.integers(0, 600), st.integers(0, 10**6))
def test_decodes_alone_take_what_the_batch_of_them_takes(num_sequences: int, num_context_tokens: int) -> None:
    lengths = [2 + num_context_tokens // max(num_sequences, 1)] * num_sequences
    batch = Batch(decode=[sequence(id, length - 1, produced=1) for id, length in enumerate(lengths)])
    assert paper().decode_seconds(num_sequences, sum(lengths)) == paper().seconds(batch)


@given(st.integers(1, 600), st.integers(0, 10**6), st.integers(1, 70))
def test_steady_decodes_take_what_each_iteration_takes(
    num_sequences: int, num_tokens: int, num_iterations: int
) -> None:
    cost = paper()
    assert cost.steady_seconds(num_sequences, num_tokens, num_iterations) == [
        cost.decode_seconds(num_sequences, num_tokens + number * num_sequences) for number in range(num_iterations)
    ]


def any_hardware() -> st.SearchStrategy[Hardware]:
    return st.builds(
        round_numbers,
        overhead_s=st.floats(0.0, 0.1),
        bytes_per_s=st.floats(1e9, 1e13),
        kv_bytes_per_s=st.none() | st.floats(1e9, 1e13),
        flops_per_s=st.floats(1e9, 1e15),
        roofline_power=st.floats(1.0, 8.0),
        saturation_tokens=st.floats(0.0, 2000.0),
        per_prompt_s=st.floats(0.0, 1e-2),
        per_sequence_s=st.floats(0.0, 1e-2),
        num_devices=st.integers(1, 8),
        all_reduce_s=st.just(1e-5),
        all_reduce_bytes_per_s=st.floats(1e9, 1e12),
    )


@given(
    any_hardware(),
    st.tuples(
        st.integers(1, 600), st.integers(0, 600), st.integers(0, 40), st.integers(1, 600), st.integers(0, 50),
        st.integers(0, 3),
    ),
)  # fmt: skip
def test_more_work_never_takes_less_time(hardware: Hardware, sizes: tuple[int, ...]) -> None:
    """A chunk's tokens and the tokens before it, decodes and their context, padding, more chunks; up to rounding."""
    cost = CostModel(small().shape(), hardware)

    def seconds(tokens: int, begin: int, sequences: int, length: int, padding: int, others: int) -> float:
        chunks = [chunk(begin, tokens, id=99), *[chunk(0, 7, id=100 + id) for id in range(others)]]
        return cost.seconds(Batch(chunks, decodes(sequences, length + 1), num_padding_tokens=padding))

    base = seconds(*sizes)
    for index in range(len(sizes)):
        more = [size + (position == index) for position, size in enumerate(sizes)]
        assert seconds(*more) >= base * (1 - 1e-12)


@given(any_hardware(), st.integers(10**5, 10**8))
def test_it_is_finite_far_outside_what_was_fitted(hardware: Hardware, size: int) -> None:
    cost = CostModel(paper_model().shape(), hardware)
    assert 0.0 < cost.decode_seconds(size, size) < float("inf")
    assert 0.0 < cost.seconds(Batch(num_padding_tokens=size)) < float("inf")


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


def test_instances_on_one_device_have_the_weights_once_and_half_of_the_rest_each() -> None:
    factory = CostModelFactory(model=small(), hardware=round_numbers(memory_bytes=100_000.0), block_size=4)
    half = factory.shared(2, Sharing.time_slicing)
    assert half.num_blocks() == factory.num_blocks() // 2
    assert (half.info().num_devices, half.info().num_sharing, factory.info().num_sharing) == (1, 2, 1)


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
    factory = CostModelFactory(model=paper_model(), hardware=v100())
    assert factory.sized(4) is factory
    info = factory.info()
    assert (info.num_devices, info.dtype) == (2, "16 bit")
    assert (info.block_bytes, info.max_context_tokens) == (16 * 819_200, 2048)


def test_an_engine_that_was_idle_takes_longer() -> None:
    """The first iteration; one at once after it; one after a pause that is long enough, and the one after that."""

    async def main(clock: VirtualClock) -> list[float]:
        factory = CostModelFactory(model=small(), hardware=round_numbers(wake_s=0.25), kv_memory_gib=1e-4)
        engine, took_s = factory.build(clock, None), []
        for pause_s in (0.0, 0.0, 0.004, 0.006, 0.0):
            await clock.sleep(pause_s)
            started_s = clock.now()
            await engine.run(Batch(decode=decodes(1)))
            took_s.append(clock.now() - started_s)
        return took_s

    clock = VirtualClock()
    first_s, *others_s = run_virtual(clock, main(clock))
    assert [seconds - others_s[0] for seconds in others_s] == pytest.approx([0.0, 0.0, 0.25, 0.0])
    assert first_s - others_s[0] == pytest.approx(0.25)
