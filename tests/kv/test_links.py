import asyncio
from dataclasses import replace

import pytest

from tests.support import CheckingEngine, CheckingFactory, info
from tetribench.core.clock import VirtualClock, WallClock, run_virtual
from tetribench.kv.links import CopyLink, LinkSpeed, VirtualLink, link_for


class RecordingClock(WallClock):
    """Time that passes only in `sleep`, and at `copy_s` for every reading: what a copy takes on a machine."""

    def __init__(self, copy_s: float) -> None:
        super().__init__()
        self.slept_s: list[float] = []
        self._now_s = 0.0
        self._copy_s = copy_s

    def now(self) -> float:
        self._now_s += self._copy_s
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


def test_a_message_takes_latency_and_bytes_over_bandwidth() -> None:
    assert LinkSpeed(bandwidth_bytes_per_s=25e9, latency_s=1e-5).seconds(419_430_400) == pytest.approx(
        0.016787, rel=1e-3
    )
    assert LinkSpeed(latency_s=0.5).seconds(10**12) == 0.5


@pytest.mark.parametrize("bandwidth", [0.0, -1.0])
def test_a_link_without_speed_is_refused(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"kv.link.bandwidth_bytes_per_s=.*must be positive, or null"):
        LinkSpeed(bandwidth_bytes_per_s=bandwidth)


def test_a_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kv.link.latency_s=-1.0: must not be negative"):
        LinkSpeed(latency_s=-1.0)


@pytest.mark.parametrize(
    ("speed", "expected_s"),
    [
        (LinkSpeed(bandwidth_bytes_per_s=1000.0, latency_s=0.25), 0.25 + 3.0),
        (LinkSpeed(bandwidth_bytes_per_s=1e9), 1.5),
        (LinkSpeed(), 1.5),
    ],
)
def test_in_virtual_time_the_slower_of_link_and_copy_counts(speed: LinkSpeed, expected_s: float) -> None:
    clock = VirtualClock()
    link = VirtualLink(speed, clock, block_bytes=1000, copy_bytes_per_s=2000.0)
    link.connect({})
    assert run_virtual(clock, link.write("decode-0", [0, 1, 2], [3, 4, 5])) == 3000
    link.close()
    assert clock.now() == expected_s


def engines(clock: WallClock) -> tuple[CheckingEngine, CheckingEngine]:
    factory = CheckingFactory(num_blocks=4, block_size=2)
    for index in range(2):
        factory.build(clock, index)
    return factory.engines[0], factory.engines[1]


@pytest.mark.parametrize(("copy_s", "expected_s"), [(0.4, [0.6]), (1.0, []), (2.0, [])])
def test_a_real_copy_puts_the_bytes_there_and_waits_out_a_slower_link(copy_s: float, expected_s: list[float]) -> None:
    clock = RecordingClock(copy_s)
    here, there = engines(clock)
    here.tagged.write(7, [3, 1], 0, 3)
    link = link_for(here, LinkSpeed(bandwidth_bytes_per_s=400.0), clock)
    assert isinstance(link, CopyLink)
    link.connect({"decode-0": there.tagged.handle()})
    assert asyncio.run(link.write("decode-0", [3, 1], [0, 2])) == 2 * 200
    link.close()
    there.tagged.assert_holds(7, [0, 2], 3)
    assert clock.slept_s == pytest.approx(expected_s)


def test_the_link_fits_the_engine() -> None:
    clock = VirtualClock()
    engine = CheckingEngine(CheckingFactory(), clock, 0)
    engine.pool = None
    assert isinstance(link_for(engine, LinkSpeed(), clock), VirtualLink)
    engine.info = replace(info(), copy_bytes_per_s=None)
    with pytest.raises(AssertionError):
        link_for(engine, LinkSpeed(), clock)
