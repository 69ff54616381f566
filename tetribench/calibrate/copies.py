"""How fast an engine's KV moves: to another place of the same memory, as the memory link moves it, and to the host."""

from collections.abc import Callable
from statistics import median, quantiles

from tetribench.core.clock import WallClock
from tetribench.engine.base import Engine, KVPool
from tetribench.engine.spans import packed, spans
from tetribench.kv.links import Memory

COPIED_BYTES = 16 * 2**20
NUM_COPIES = 25
NUM_MOVES = 49


def copy_bytes_per_s(engine: Engine, clock: WallClock) -> float:
    """Whole neighbouring blocks, from one half of the KV memory to the other."""
    pool, num_blocks = _pool(engine)
    moved = spans(list(range(num_blocks)), list(range(num_blocks, 2 * num_blocks)), pool.block_bytes)
    return num_blocks * pool.block_bytes / _seconds(lambda: pool.copy_to(pool, moved), clock)


async def copy_latency_s(engine: Engine, clock: WallClock) -> float:
    """What the memory link takes to move one block, less the copy itself: a thread is woken, and wakes the loop."""
    pool, _ = _pool(engine)
    link = Memory().build(pool, clock)
    link.connect({"self": link.handle()})
    times = []
    for _ in range(NUM_MOVES):
        started_s = clock.now()
        await link.move("self", [0], [1])
        times.append(clock.now() - started_s)
    link.close()
    moved = spans([0], [1], pool.block_bytes)
    return max(float(median(times)) - _seconds(lambda: pool.copy_to(pool, moved), clock), 0.0)


def host_bytes_per_s(engine: Engine, clock: WallClock) -> float:
    """Every other block to host memory, as blocks are scattered that are swapped out."""
    pool, num_blocks = _pool(engine)
    buffer = memoryview(bytearray(num_blocks * pool.block_bytes))
    scattered = list(range(0, 2 * num_blocks, 2))
    into, _ = packed(spans(scattered, list(range(0, 4 * num_blocks, 4)), pool.block_bytes))
    unpin = pool.pin(buffer)
    try:
        return num_blocks * pool.block_bytes / _seconds(lambda: pool.gather(buffer, into), clock)
    finally:
        unpin()


def _pool(engine: Engine) -> tuple[KVPool, int]:
    """The engine's KV memory, and how many of its blocks are copied: about 16 MiB."""
    assert engine.pool is not None, "a cost model has no bytes to copy"
    num_blocks = min(COPIED_BYTES // engine.pool.block_bytes, engine.info.num_blocks // 2)
    return engine.pool, max(num_blocks, 1)


def _seconds(copy: Callable[[], None], clock: WallClock) -> float:
    """The fastest quarter of some copies ends here: they are short, and nobody counts what disturbs them."""
    times = []
    for _ in range(NUM_COPIES):
        started_s = clock.now()
        copy()
        times.append(clock.now() - started_s)
    return quantiles(times[1:], n=4)[0]  # the first touches memory
