"""Every medium with every verb that it has: between processes, with peers that die, stop and come back."""

import asyncio
import importlib.util
import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest

from tests.kv.links.peers import BLOCK_BYTES, BouncedTcp, BytesPool, Remote, SmallSegment
from tetribench.core.clock import WallClock
from tetribench.engine.base import Part
from tetribench.kv.links import Link, LinkFailed, LinkSpeed, Medium, Memory, Operation
from tetribench.kv.links.nixl import Nixl
from tetribench.kv.links.shared_memory import SharedMemory
from tetribench.kv.links.tcp import Tcp
from tetribench.kv.links.wire import Address

pytestmark = pytest.mark.alone

NEEDS_NIXL = pytest.mark.skipif(
    importlib.util.find_spec("nixl_cu13") is None, reason="needs the package nixl-cu13 (extra `nixl`)"
)
MEDIA = [
    Memory(),
    Memory(operation=Operation.read),
    SharedMemory(),
    SmallSegment(),
    Tcp(),
    BouncedTcp(),
    pytest.param(Nixl(), marks=NEEDS_NIXL),
    pytest.param(Nixl(operation=Operation.read), marks=NEEDS_NIXL),
]
ASKING = [Memory(operation=Operation.read), SharedMemory(), Tcp()]
"""Those whose receiver takes part."""

NUM_BLOCKS = 40


def name_of(medium: Medium) -> str:
    return f"{type(medium).__name__}-{medium.name}".replace(" ", "-")


@pytest.fixture
def start() -> Iterator[Callable[[Medium], Remote]]:
    """Starts peers, which are all gone afterwards."""
    started: list[Remote] = []

    def begin(medium: Medium) -> Remote:
        started.append(Remote(medium, partial(BytesPool, NUM_BLOCKS)))
        return started[-1]

    yield begin
    for remote in started:
        remote.close()


def tagged_pool() -> BytesPool:
    """In which every byte says where it is."""
    pool = BytesPool(NUM_BLOCKS)
    pool.bytes[:] = bytes((7 * index + index // 251) % 255 + 1 for index in range(pool.bytes.nbytes))
    return pool


def over(medium: Medium, pool: BytesPool, work: Callable[[Link], Awaitable[None]]) -> None:
    """`work` with this process's end of a link, within what a broken one could hang for."""

    async def main() -> None:
        link = medium.build(pool, WallClock())
        await link.open()
        try:
            await asyncio.wait_for(work(link), 20.0)
        finally:
            link.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "the link leaves tasks behind"

    asyncio.run(main())


@asynccontextmanager
async def end_of(medium: Medium, pool: BytesPool) -> AsyncIterator[bytes]:
    """The handle of another end in this process."""
    link = medium.build(pool, WallClock())
    await link.open()
    try:
        yield link.handle()
    finally:
        link.close()


def assert_holds(found: bytes, pool: BytesPool, source_of: dict[int, int]) -> None:
    """Blocks `target: source` of `pool`, and zeros in all others."""
    for block_id in range(NUM_BLOCKS):
        block = found[block_id * BLOCK_BYTES : (block_id + 1) * BLOCK_BYTES]
        expected = pool.block(source_of[block_id]) if block_id in source_of else bytes(BLOCK_BYTES)
        assert block == expected, f"block {block_id}"


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_the_right_bytes_arrive_interleaved_with_those_for_others(
    medium: Medium, start: Callable[[Medium], Remote]
) -> None:
    peers = {"one": start(medium), "two": start(medium)}
    pool = tagged_pool()
    rng = random.Random(5)
    expected: dict[str, dict[int, int]] = {name: {} for name in peers}
    moves = []
    for name in peers:
        free = [*range(5, 15), *rng.sample(range(15, NUM_BLOCKS), 20)]  # a run, then scattered blocks
        while free:
            targets, free = free[:7], free[7:]
            sources = rng.sample(range(NUM_BLOCKS), len(targets)) if len(free) % 2 else list(range(len(targets)))
            expected[name] |= dict(zip(targets, sources, strict=True))
            moves.append((name, sources, targets))
    rng.shuffle(moves)

    async def work(link: Link) -> None:
        link.connect({"one": peers["one"].handle})
        link.connect({"two": peers["two"].handle})
        moved = await asyncio.gather(*(link.move(*move) for move in moves))
        assert moved == [len(sources) * BLOCK_BYTES for _, sources, _ in moves]
        for name, peer in peers.items():
            assert_holds(peer.contents(), pool, expected[name])

    over(medium, pool, work)


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_a_closed_link_leaves_no_thread(medium: Medium) -> None:
    async def work(link: Link) -> None:
        async with end_of(medium, BytesPool(NUM_BLOCKS)) as handle:
            link.connect({"one": handle})
            await link.move("one", [0], [1])

    over(medium, tagged_pool(), work)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kv-link")]


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_a_part_of_each_block_travels_alone(medium: Medium) -> None:
    pool, there = tagged_pool(), BytesPool(NUM_BLOCKS)

    async def work(link: Link) -> None:
        async with end_of(medium, there) as handle:
            link.connect({"one": handle})
            assert await link.move("one", [3, 4], [0, 1], Part(10, 20)) == 40
        found = bytes(there.bytes)
        assert [found[:10], found[30 : BLOCK_BYTES + 10]] == [bytes(10), bytes(BLOCK_BYTES - 20)]
        assert [found[10:30], found[BLOCK_BYTES + 10 :][:20]] == [pool.block(3)[10:30], pool.block(4)[10:30]]
        assert found[BLOCK_BYTES + 30 :] == bytes((NUM_BLOCKS - 1) * BLOCK_BYTES - 30)

    over(medium, pool, work)


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_more_than_any_buffer_holds(medium: Medium) -> None:
    """32 MiB in one process: sockets push back, segments are filled more than once."""
    size = 2**19 if "Small" not in name_of(medium) and "Bounced" not in name_of(medium) else 2**8
    pool, there = BytesPool(64, size, fill=1), BytesPool(64, size, fill=0)
    pool.bytes[::1000] = bytes(len(pool.bytes[::1000]))

    async def work(link: Link) -> None:
        async with end_of(medium, there) as handle:
            link.connect({"one": handle})
            assert await link.move("one", range(64), [*range(32, 64), *range(32)]) == 64 * size
        half = 32 * size
        assert there.bytes[half:] == pool.bytes[:half] and there.bytes[:half] == pool.bytes[half:]

    over(medium, pool, work)


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_more_pieces_than_a_system_call_takes(medium: Medium) -> None:
    """Of odd sizes and all apart, so that what is sent and received at once ends within them."""
    num_blocks, size = 3000, 2011 if "Small" not in name_of(medium) and "Bounced" not in name_of(medium) else 11
    pool, there = BytesPool(num_blocks, size), BytesPool(num_blocks, size)
    pool.bytes[:] = random.Random(1).randbytes(pool.bytes.nbytes)
    targets = list(range(num_blocks))
    random.Random(2).shuffle(targets)

    async def work(link: Link) -> None:
        async with end_of(medium, there) as handle:
            link.connect({"one": handle})
            assert await link.move("one", range(num_blocks), targets) == num_blocks * size
        for source, target in enumerate(targets):
            assert there.block(target) == pool.block(source)

    over(medium, pool, work)


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_a_peer_that_dies_fails_its_moves_only_and_may_come_back(
    medium: Medium, start: Callable[[Medium], Remote]
) -> None:
    victim, other = start(medium), start(medium)
    pool = tagged_pool()

    async def work(link: Link) -> None:
        link.connect({"victim": victim.handle, "other": other.handle})
        await link.move("victim", [0], [0])
        await link.move("other", [1], [1])

        async def to_the_end() -> None:
            while True:
                await link.move("victim", list(range(NUM_BLOCKS)), list(range(NUM_BLOCKS)))

        moving = asyncio.ensure_future(to_the_end())
        await asyncio.sleep(0.05)
        assert not moving.done()
        await asyncio.to_thread(victim.kill)
        with pytest.raises(LinkFailed, match=r"^victim: "):
            await moving
        await link.move("other", [2], [2])
        with pytest.raises(LinkFailed, match=r"^victim: "):
            await link.move("victim", [0], [0])
        await link.move("other", [3], [3])
        assert_holds(other.contents(), pool, {1: 1, 2: 2, 3: 3})
        back = await asyncio.to_thread(start, medium)
        link.connect({"victim": back.handle})
        await link.move("victim", [4], [9])
        assert_holds(back.contents(), pool, {9: 4})

    over(medium, pool, work)


@pytest.mark.parametrize("medium", ASKING, ids=name_of)
def test_a_peer_that_does_not_answer_in_time_fails_the_move(medium: Medium, start: Callable[[Medium], Remote]) -> None:
    impatient = type(medium)(operation=medium.operation, timeout_s=0.3)  # type: ignore[attr-defined,call-arg]
    peer = start(medium)
    pool = tagged_pool()

    async def work(link: Link) -> None:
        link.connect({"one": peer.handle})
        os.kill(peer.pid, signal.SIGSTOP)
        try:
            with pytest.raises(LinkFailed, match=r"one: no end after 0\.3 s"):
                await link.move("one", [0], [0])
        finally:
            os.kill(peer.pid, signal.SIGCONT)
        assert await link.move("one", [5], [5]) == BLOCK_BYTES
        assert peer.contents()[5 * BLOCK_BYTES : 6 * BLOCK_BYTES] == pool.block(5)

    over(impatient, pool, work)


@pytest.mark.parametrize("medium", MEDIA, ids=name_of)
def test_a_peer_that_is_not_known_or_forgotten_is_refused(medium: Medium) -> None:
    there = BytesPool(NUM_BLOCKS)

    async def work(link: Link) -> None:
        async with end_of(medium, there) as handle:
            link.connect({"one": handle})
            await link.move("one", [0], [0])
            link.disconnect("one")
            for name in ("one", "never"):
                with pytest.raises(LinkFailed, match=f"{name}: no such peer"):
                    await link.move(name, [0], [0])

    over(medium, tagged_pool(), work)


@pytest.mark.parametrize("medium", ASKING, ids=name_of)
def test_a_peer_that_is_forgotten_during_a_move_fails_it(medium: Medium, start: Callable[[Medium], Remote]) -> None:
    peer = start(medium)

    async def work(link: Link) -> None:
        link.connect({"one": peer.handle})
        await link.move("one", [0], [0])
        os.kill(peer.pid, signal.SIGSTOP)
        try:
            moving = asyncio.ensure_future(link.move("one", [0], [0]))
            await asyncio.sleep(0.05)
            link.disconnect("one")
            with pytest.raises(LinkFailed, match=r"^one: "):
                await moving
        finally:
            os.kill(peer.pid, signal.SIGCONT)

    over(medium, tagged_pool(), work)


@pytest.mark.parametrize("medium", ASKING, ids=name_of)
@pytest.mark.parametrize("target", [NUM_BLOCKS, -1])
def test_a_receiver_refuses_what_is_not_its_own(medium: Medium, target: int, start: Callable[[Medium], Remote]) -> None:
    peer = start(medium)
    pool = tagged_pool()

    async def work(link: Link) -> None:
        link.connect({"one": peer.handle})
        with pytest.raises(LinkFailed, match="are not in its pool of 3840"):
            await link.move("one", [0], [target])
        await link.move("one", [1], [1])
        assert_holds(peer.contents(), pool, {1: 1})

    over(medium, pool, work)


def test_a_port_that_someone_else_has_been_given_since_is_not_written_to(start: Callable[[Medium], Remote]) -> None:
    peer = start(Tcp())
    address = msgspec.msgpack.decode(peer.handle, type=Address)
    before = msgspec.msgpack.encode(Address(address.host, address.port, bytes(16)))

    async def work(link: Link) -> None:
        link.connect({"one": before})
        with pytest.raises(LinkFailed, match=r"^one: "):
            await link.move("one", [0], [0])
        assert peer.contents() == bytes(NUM_BLOCKS * BLOCK_BYTES)

    over(Tcp(), tagged_pool(), work)


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


@pytest.mark.parametrize(("copy_s", "expected_s"), [(0.4, [0.6]), (1.0, []), (2.0, [])])
def test_an_emulated_speed_is_waited_out_after_the_copy(copy_s: float, expected_s: list[float]) -> None:
    clock, here, there = RecordingClock(copy_s), tagged_pool(), BytesPool(NUM_BLOCKS)

    async def main() -> None:
        link = Memory(speed=LinkSpeed(bandwidth_bytes_per_s=2 * BLOCK_BYTES)).build(here, clock)
        link.connect({"one": Memory().build(there, clock).handle()})
        assert await link.move("one", [3, 1], [0, 2]) == 2 * BLOCK_BYTES
        link.close()

    asyncio.run(main())
    assert_holds(bytes(there.bytes), here, {0: 3, 2: 1})
    assert clock.slept_s == pytest.approx(expected_s)
