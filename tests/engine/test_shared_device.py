import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import BoundedClock
from tetribench.core.clock import run_virtual
from tetribench.engine.shared_device import SharedDevice


def ends(slowdown: float, *jobs: tuple[float, float]) -> list[float]:
    """When each job of (start, seconds) ends."""
    clock = BoundedClock()

    async def one(device: SharedDevice, start_s: float, seconds: float) -> float:
        await clock.sleep(start_s)
        await device.run(seconds)
        return clock.now()

    async def main() -> list[float]:
        device = SharedDevice(clock, slowdown)
        return list(await asyncio.gather(*(one(device, *job) for job in jobs)))

    return run_virtual(clock, main())


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([(0.0, 1.0)], [1.0]),
        ([(0.0, 1.0), (1.0, 1.0)], [1.0, 2.0]),
        ([(0.0, 1.0), (0.0, 1.0)], [2.0, 2.0]),
        ([(0.0, 4.0), (1.0, 1.0)], [5.0, 3.0]),  # 1 alone, 2 for 1 beside it, 2 alone
        ([(0.0, 4.0), (3.0, 3.0)], [5.0, 7.0]),  # 3 alone, 2 for 1, and the other one 2 alone
        ([(0.0, 8.0), (1.0, 1.0), (5.0, 1.0)], [10.0, 3.0, 7.0]),
        ([(0.0, 0.0)], [0.0]),
    ],
)
def test_only_the_time_beside_each_other_is_slowed(jobs: list[tuple[float, float]], expected: list[float]) -> None:
    assert ends(2.0, *jobs) == pytest.approx(expected)


@given(st.floats(1.0, 3.0), st.floats(0.1, 5.0), st.floats(0.1, 5.0), st.floats(0.0, 5.0))
def test_an_overlap_costs_both_the_same(slowdown: float, first_s: float, second_s: float, start_s: float) -> None:
    first_end_s, second_end_s = ends(slowdown, (0.0, first_s), (start_s, second_s))
    lost_s = first_end_s - first_s
    assert lost_s >= -1e-9 and second_end_s - start_s - second_s == pytest.approx(lost_s, abs=1e-9)
    assert max(first_end_s, second_end_s) <= slowdown * (first_s + second_s) + start_s + 1e-9
