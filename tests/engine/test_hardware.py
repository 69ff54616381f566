from typing import Any

import pytest

from tetribench.engine.hardware import Hardware

NUMBERS: dict[str, float] = {
    "memory_bytes": 8e9, "overhead_s": 0.002, "bytes_per_s": 1e10, "flops_per_s": 1e11, "copy_bytes_per_s": 5e9,
    "host_bytes_per_s": 2e9,
}  # fmt: skip


def hardware(**changes: Any) -> Hardware:
    arguments: dict[str, Any] = {"name": "x", "source": "y", **NUMBERS} | changes
    return Hardware(**arguments)


@pytest.mark.parametrize("option", ["num_devices", "chunk_size", *sorted(NUMBERS.keys() - {"overhead_s"})])
@pytest.mark.parametrize("value", [0, -1])
def test_hardware_without_speed_or_room_is_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"hardware\.{option}={value}: must be positive"):
        hardware(**{option: value})


@pytest.mark.parametrize(
    "option", ["overhead_s", "per_sequence_s", "batching_s", "wake_s", "message_s", "copy_latency_s"]
)
def test_costs_may_be_nothing_but_not_less(option: str) -> None:
    assert getattr(hardware(**{option: 0.0}), option) == 0.0
    with pytest.raises(ValueError, match=rf"hardware\.{option}=-1.0: must not be negative"):
        hardware(**{option: -1.0})


def test_values_are_sixteen_bit_on_one_device_unless_said_otherwise() -> None:
    default = hardware()
    assert (default.bytes_per_value, default.num_devices, default.kv_memory_gib) == (2, 1, None)


@pytest.mark.parametrize("option", ["co_run_slowdown", "beside_slowdown"])
def test_what_runs_beside_cannot_make_anything_faster(option: str) -> None:
    assert (getattr(hardware(), option), getattr(hardware(**{option: 1.0}), option)) == (None, 1.0)
    with pytest.raises(ValueError, match=rf"hardware\.{option}=0.9: must be at least 1, or null"):
        hardware(**{option: 0.9})


def test_rates_of_kv_and_attention_are_those_of_everything_unless_said_otherwise() -> None:
    default = hardware()
    assert (default.kv_bytes_per_s, default.attention_flops_per_s) == (1e10, 1e11)
    other = hardware(kv_bytes_per_s=1.0, attention_flops_per_s=2.0)
    assert (other.kv_bytes_per_s, other.attention_flops_per_s) == (1.0, 2.0)


def test_a_sum_is_the_least_that_hides_nothing() -> None:
    with pytest.raises(ValueError, match=r"hardware\.roofline_power=0.9: must be at least 1"):
        hardware(roofline_power=0.9)


ALL_REDUCE = {"all_reduce_s": 1e-5, "all_reduce_bytes_per_s": 1e11}


def test_more_devices_have_more_of_everything() -> None:
    one, four = hardware(**ALL_REDUCE), hardware(num_devices=4, **ALL_REDUCE)
    for name in ("memory_bytes", "bytes_per_s", "kv_bytes_per_s", "flops_per_s", "copy_bytes_per_s"):
        assert getattr(four, name) == 4 * getattr(one, name)
    assert (one.all_reduce_s, one.all_reduce_s_per_byte) == (0.0, 0.0)
    assert [four.all_reduce_s, four.all_reduce_s_per_byte] == pytest.approx([1e-5, 1.5e-11])
    assert (one.name, four.name) == ("x", "4 x x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_devices": 2}, r"hardware\.num_devices=2: must be 1, as measured \(x\)"),
        ({"num_devices": 9, **ALL_REDUCE}, r"hardware\.num_devices=9: must be 1 to 8 \(x\)"),
        ({"num_devices": 4, "constants_of": 2, **ALL_REDUCE}, r"hardware\.num_devices=4: must be 2, as measured \(x\)"),
    ],
)
def test_devices_that_nothing_is_known_of_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hardware(**changes)


def test_what_was_fitted_is_known_as_far_as_it_is_said() -> None:
    assert hardware().fitted == {}
    assert hardware(fitted_sequences=64).fitted == {"sequences": 64}
    with pytest.raises(ValueError, match=r"hardware\.fitted_sequences=0: must be positive"):
        hardware(fitted_sequences=0)
