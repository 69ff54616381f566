import asyncio

import pytest

from tetribench.core.clock import VirtualClock, run_virtual
from tetribench.kv.links import LinkFailed, LinkSpeed, VirtualLink


def link_of(clock: VirtualClock, speed: LinkSpeed) -> VirtualLink:
    link = VirtualLink(speed, clock, block_bytes=1000, copy_bytes_per_s=2000.0)
    link.connect({"decode-0": b"virtual"})
    return link


def test_a_copy_may_take_time_whatever_its_size() -> None:
    clock = VirtualClock()
    link = VirtualLink(LinkSpeed(latency_s=1.0), clock, block_bytes=1000, copy_bytes_per_s=2000.0, copy_latency_s=0.75)
    link.connect({"decode-0": b"virtual"})
    run_virtual(clock, link.move("decode-0", [0], [1]))
    assert clock.now() == 0.75 + 0.5


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
    link = link_of(clock, speed)

    async def main() -> None:
        await link.open()
        assert await link.move("decode-0", [0, 1, 2], [3, 4, 5]) == 3000
        link.close()

    run_virtual(clock, main())
    assert clock.now() == expected_s


def test_what_comes_to_one_instance_at_once_comes_one_after_the_other() -> None:
    """Three peers push one block each, of half a second: two to one instance, one to another."""
    clock = VirtualClock()
    receivers = {name: VirtualLink(LinkSpeed(), clock, 1000, 2000.0) for name in ("decode-0", "decode-1")}
    senders = [VirtualLink(LinkSpeed(), clock, 1000, 2000.0) for _ in range(3)]
    ended: dict[int, float] = {}

    async def push(number: int, to: str) -> None:
        await senders[number].move(to, [0], [0])
        ended[number] = clock.now()

    async def main() -> None:
        for sender in senders:
            sender.connect({name: link.handle() for name, link in receivers.items()})
        await asyncio.gather(push(0, "decode-0"), push(1, "decode-0"), push(2, "decode-1"))
        await clock.sleep(10.0)
        await push(0, "decode-0")

    run_virtual(clock, main())
    assert ended == {0: 11.5, 1: 1.0, 2: 0.5}


def test_a_peer_that_is_not_known_or_goes_away_meanwhile_fails_the_move() -> None:
    clock = VirtualClock()
    link = link_of(clock, LinkSpeed())
    link.connect({"decode-1": link.handle()})

    async def main() -> None:
        with pytest.raises(LinkFailed, match="decode-2: no such peer"):
            await link.move("decode-2", [0], [0])
        moving = asyncio.ensure_future(link.move("decode-0", [0], [0]))
        await clock.sleep(0.1)
        link.disconnect("decode-0")
        with pytest.raises(LinkFailed, match="decode-0"):
            await moving
        assert await link.move("decode-1", [0], [0]) == 1000

    run_virtual(clock, main())
