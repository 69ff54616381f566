import asyncio
import fcntl
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.clock import VirtualClock, WallClock, run_real, run_virtual


def test_wall_clocks_of_one_origin_are_one_clock() -> None:
    first, second = WallClock(origin_s=0.0), WallClock(origin_s=0.0)
    assert first.now() <= second.now() <= first.now()
    assert WallClock().now() < first.now()


@pytest.mark.alone
def test_the_wall_clock_sleeps_and_takes_negative_durations_for_none() -> None:
    clock = WallClock()

    async def main() -> float:
        await clock.sleep(-1.0)
        started_s = clock.now()
        await clock.sleep(0.01)
        await clock.sleep_until(started_s + 0.02)
        await clock.sleep_until(started_s)
        return clock.now() - started_s

    assert run_real(main()) > 0.0199


@pytest.mark.alone
def test_real_waits_are_not_rounded_to_milliseconds() -> None:
    """The shortest of many is hardly ever disturbed; on epoll none of them can end within its millisecond."""
    clock = WallClock()

    async def main() -> list[float]:
        waits_s = []
        for _ in range(200):
            started_s = clock.now()
            await clock.sleep(0.0002)
            waits_s.append(clock.now() - started_s)
        return waits_s

    assert 0.0002 <= min(run_real(main())) < 0.001


def test_real_time_knows_files_with_high_numbers() -> None:
    """`select` by itself takes none above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, 1100)

    async def main() -> bytes:
        readable = asyncio.Event()
        asyncio.get_running_loop().add_reader(high, readable.set)
        os.write(writing, b"x")
        await readable.wait()
        asyncio.get_running_loop().remove_reader(high)
        return os.read(high, 1)

    try:
        assert run_real(asyncio.wait_for(main(), 10.0)) == b"x"
    finally:
        for number in (reading, writing, high):
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.2, 0.3, 1e-9, 7.0]), min_size=1, max_size=30))
def test_sleepers_wake_by_deadline_and_in_order_on_ties(durations_s: list[float]) -> None:
    clock = VirtualClock()
    woken: list[tuple[int, float]] = []

    async def sleeper(index: int, duration_s: float) -> None:
        await clock.sleep(duration_s)
        woken.append((index, clock.now()))

    async def main() -> None:
        await asyncio.gather(*(sleeper(index, duration_s) for index, duration_s in enumerate(durations_s)))

    run_virtual(clock, main())
    deadlines_s = [max(duration_s, 0.0) for duration_s in durations_s]
    expected = sorted(range(len(durations_s)), key=lambda index: deadlines_s[index])
    assert woken == [(index, deadlines_s[index]) for index in expected]


@pytest.mark.parametrize("duration_s", [0.0, -3.0])
def test_a_sleep_of_no_time_lets_the_others_run(duration_s: float) -> None:
    clock, order = VirtualClock(), []

    async def other() -> None:
        order.append("other")

    async def main() -> None:
        task = asyncio.create_task(other())
        await clock.sleep(duration_s)
        order.append("main")
        await task

    run_virtual(clock, main())
    assert order == ["other", "main"] and clock.now() == 0.0


@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_a_deadline_is_met_exactly_whatever_the_rounding(started_s: float, deadline_s: float) -> None:
    clock = VirtualClock()

    async def main() -> None:
        await clock.sleep(started_s)
        await clock.sleep_until(deadline_s)

    run_virtual(clock, main())
    assert clock.now() == max(started_s, deadline_s)


def test_time_does_not_jump_to_a_sleeper_that_was_cancelled() -> None:
    clock = VirtualClock()

    async def main() -> None:
        task = asyncio.create_task(clock.sleep(5.0))
        await clock.sleep(1.0)
        task.cancel()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtual(clock, main())
    assert clock.now() == 1.0


def test_time_stands_still_while_anything_is_ready() -> None:
    clock = VirtualClock()

    async def main() -> None:
        sleeping = asyncio.create_task(clock.sleep(1.0))
        for _ in range(1000):
            await asyncio.sleep(0)
            assert clock.now() == 0.0
        await sleeping
        assert clock.now() == 1.0

    run_virtual(clock, main())


def test_when_everyone_waits_and_nobody_sleeps_it_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock in virtual time"):
        run_virtual(VirtualClock(), main())


def test_of_equal_deadlines_the_lower_rank_comes_first_and_passes_the_others_by() -> None:
    clock, woken = VirtualClock(), []

    async def sleeper(rank: int) -> None:
        await clock.sleep_until(1.0, rank)
        woken.append((rank, [clock.has_passed(1.0, other) for other in range(4)]))

    async def main() -> None:
        await asyncio.gather(*(sleeper(rank) for rank in (3, 0, 2)))
        assert clock.has_passed(0.5, 9) and not clock.has_passed(1.5, 0)

    run_virtual(clock, main())
    assert woken == [(0, [False] * 4), (2, [True, True, False, False]), (3, [True, True, True, False])]


def test_a_wait_ends_at_the_earliest_of_its_times() -> None:
    clock = VirtualClock()

    async def main() -> None:
        sleeper = asyncio.get_running_loop().create_future()
        for time_s in (5.0, 2.0, 3.0):
            clock.wake(sleeper, time_s)
        await sleeper
        assert clock.now() == 2.0
        await clock.sleep(10.0)

    run_virtual(clock, main())
    assert clock.now() == 12.0


def test_what_is_done_every_so_often_is_done_at_once_and_then_in_turn_with_sleepers() -> None:
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []

    async def main() -> None:
        ticking = asyncio.create_task(clock.every(0.5, lambda: seen.append(("tick", clock.now()))))
        for _ in range(2):
            await clock.sleep(0.5)
            seen.append(("sleeper", clock.now()))
        ticking.cancel()
        await clock.sleep(2.0)

    run_virtual(clock, main())
    assert seen == [("tick", 0.0), ("sleeper", 0.5), ("tick", 0.5), ("sleeper", 1.0)]


@pytest.mark.parametrize("clock", [VirtualClock(), WallClock()], ids=["virtual", "wall"])
@pytest.mark.parametrize("num_good", [0, 2])
def test_an_error_ends_what_is_done_every_so_often(clock: VirtualClock | WallClock, num_good: int) -> None:
    times_s: list[float] = []

    def do() -> None:
        times_s.append(clock.now())
        if len(times_s) > num_good:
            raise KeyError("enough")

    async def main() -> None:
        with pytest.raises(KeyError, match="enough"):
            await clock.every(0.01, do)

    if isinstance(clock, VirtualClock):
        run_virtual(clock, main())
    else:
        asyncio.run(main())
    assert len(times_s) == num_good + 1 and times_s == sorted(times_s)


def test_an_error_in_a_callback_goes_to_the_handler_of_the_loop() -> None:
    clock, errors = VirtualClock(), []

    def fail() -> None:
        raise ValueError("in a callback")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
        loop.call_soon_threadsafe(fail)
        await clock.sleep(1.0)

    run_virtual(clock, main())
    assert errors == ["in a callback"]


def test_asyncios_own_timers_are_refused() -> None:
    async def main() -> None:
        await asyncio.sleep(1.0)

    with pytest.raises(AssertionError, match="stand still in virtual time"):
        run_virtual(VirtualClock(), main())
