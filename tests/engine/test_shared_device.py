import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import BoundedClock
from tetribench.core.clock import run_virtual
from tetribench.engine.shared_device import SharedDevice

Job = tuple[float, float]
"""When it starts, and the seconds that it takes by itself."""


def ends(slowdown: float, *jobs: Job) -> list[float]:
    """When each job of one instance ends."""
    (found,) = ends_beside(slowdown, list(jobs))
    return found


def ends_beside(slowdown: float, *instances: list[Job]) -> list[list[float]]:
    """When each job of each of the instances on one device ends."""
    clock = BoundedClock()

    async def one(device: SharedDevice, start_s: float, seconds: float) -> float:
        await clock.sleep(start_s)
        await device.run(seconds)
        return clock.now()

    async def main() -> list[list[float]]:
        devices = [SharedDevice(clock, slowdown) for _ in instances]
        for device in devices[1:]:
            device.share(devices[0])
        each = [[one(device, *job) for job in jobs] for device, jobs in zip(devices, instances, strict=True)]
        return list(await asyncio.gather(*(asyncio.gather(*runs) for runs in each)))

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


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([(0.0, 1.0)], [(0.0, 1.0)], [[2.0], [2.0]]),
        ([(0.0, 4.0)], [(1.0, 1.0)], [[5.0], [3.0]]),
        ([(0.0, 4.0)], [], [[4.0], []]),
        # an iteration and a prediction of the first, which slow each other, and both beside one iteration of the second
        ([(0.0, 1.0), (0.0, 1.0)], [(0.0, 1.0)], [[3.0, 3.0], [2.0]]),
    ],
)
def test_instances_take_turns(first: list[Job], second: list[Job], expected: list[list[float]]) -> None:
    """`slowdown` is within an instance: 4 for 1 while both of the first run and the second has half of the device."""
    assert [pytest.approx(own) for own in expected] == ends_beside(2.0, first, second)


busy = st.lists(st.floats(0.01, 3.0), min_size=1, max_size=8)


@given(busy, busy)
def test_two_instances_that_always_have_work_get_together_what_one_would(
    first_s: list[float], second_s: list[float]
) -> None:
    """Each runs its jobs one after the other. When the first has ended, both have done as much, and together as much as
    one could have; at the end of the second everything has taken as long as by itself."""
    clock = BoundedClock()
    done_at_s: list[float] = []

    async def all_of(device: SharedDevice, jobs: list[float]) -> None:
        for seconds in jobs:
            await device.run(seconds)
        done_at_s.append(clock.now())

    async def main() -> None:
        one, other = SharedDevice(clock, 1.0), SharedDevice(clock, 1.0)
        other.share(one)
        await asyncio.gather(all_of(one, first_s), all_of(other, second_s))

    run_virtual(clock, main())
    shorter_s, whole_s = min(sum(first_s), sum(second_s)), sum(first_s) + sum(second_s)
    assert done_at_s == pytest.approx([2 * shorter_s, whole_s])


@given(busy, busy, st.floats(0.0, 5.0), st.floats(1.0, 3.0))
def test_nobody_is_served_faster_than_alone_and_nothing_is_lost(
    first_s: list[float], second_s: list[float], start_s: float, slowdown: float
) -> None:
    """Iterations of an instance that overlap, one by one, with what another one runs."""
    jobs = [[(3.0 * index, seconds / 3) for index, seconds in enumerate(first_s)], [(start_s, sum(second_s))]]
    found = ends_beside(slowdown, *jobs)
    for own, ended_s in zip(jobs, found, strict=True):
        assert all(end_s >= start_s + seconds - 1e-9 for (start_s, seconds), end_s in zip(own, ended_s, strict=True))
    all_s = sum(seconds for own in jobs for _, seconds in own)
    latest_start_s = max(start_s for own in jobs for start_s, _ in own)
    assert max(end_s for own in found for end_s in own) <= latest_start_s + all_s + 1e-9


def test_only_an_own_device_is_foreseen() -> None:
    clock = BoundedClock()
    one, other = SharedDevice(clock, 1.0), SharedDevice(clock, 1.0)
    assert one.is_undisturbed
    one.share(other)
    assert not one.is_undisturbed and not other.is_undisturbed


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([(0.0, 1.0), None, None], [1.0]),
        ([(0.0, 1.0), (0.0, 1.0), None], [1.5, 1.5]),  # on two devices
        ([(0.0, 4.0), (1.0, 1.0), None], [4.5, 2.5]),  # 1 alone, 1 for 1.5 beside it, 2 alone
        ([(0.0, 1.0), None, (0.0, 1.0)], [2.0, 2.0]),  # on one device
        ([(0.0, 1.0), (0.0, 1.0), (0.0, 1.0)], [2.5, 1.5, 2.5]),  # two on one, and one beside them at first
        ([(0.0, 0.5), (0.0, 2.0), (0.0, 0.5)], [1.5, 2.5, 1.5]),
    ],
)
def test_devices_of_one_machine_slow_each_other(jobs: list[Job | None], expected: list[float]) -> None:
    """The first and the third share a device, the second has its own; 1.5 for 1 beside another device."""
    clock = BoundedClock()

    async def one(device: SharedDevice, start_s: float, seconds: float) -> float:
        await clock.sleep(start_s)
        await device.run(seconds)
        return clock.now()

    async def main() -> list[float]:
        devices = [SharedDevice(clock, 1.0, beside_slowdown=1.5) for _ in jobs]
        devices[1].stand_beside(devices[0])
        devices[2].share(devices[0])
        assert not any(device.is_undisturbed for device in devices)
        runs = [one(device, *job) for device, job in zip(devices, jobs, strict=True) if job is not None]
        return list(await asyncio.gather(*runs))

    assert run_virtual(clock, main()) == pytest.approx(expected)
