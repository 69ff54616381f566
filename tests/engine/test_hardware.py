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


@pytest.mark.parametrize("option", ["num_devices", *sorted(NUMBERS.keys() - {"overhead_s"})])
@pytest.mark.parametrize("value", [0, -1])
def test_hardware_without_speed_or_room_is_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"hardware\.{option}={value}: must be positive"):
        hardware(**{option: value})


@pytest.mark.parametrize("option", ["overhead_s", "per_sequence_s", "message_s", "copy_latency_s"])
def test_costs_may_be_nothing_but_not_less(option: str) -> None:
    assert getattr(hardware(**{option: 0.0}), option) == 0.0
    with pytest.raises(ValueError, match=rf"hardware\.{option}=-1.0: must not be negative"):
        hardware(**{option: -1.0})


def test_values_are_sixteen_bit_on_one_device_unless_said_otherwise() -> None:
    default = hardware()
    assert (default.bytes_per_value, default.num_devices, default.kv_memory_gib) == (2, 1, None)


def test_a_predictor_beside_the_engine_cannot_make_it_faster() -> None:
    assert (hardware().co_run_slowdown, hardware(co_run_slowdown=1.0).co_run_slowdown) == (None, 1.0)
    with pytest.raises(ValueError, match=r"hardware\.co_run_slowdown=0.9: must be at least 1, or null"):
        hardware(co_run_slowdown=0.9)
