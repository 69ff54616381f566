"""What a link carries between two processes of this machine, over what the same bytes need without it, in turns.

64 MiB in pages of 16 KiB, of which a 512-token chunk of a small model is made, as one run of neighbours and scattered
so that no two of them are. Processes share the machine's cores, as instances do.
"""

import asyncio
import importlib.util
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.raw import Move, memcpy, nixl, tcp
from tests.kv.links.peers import Remote
from tetribench.core.clock import WallClock
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.model import Model
from tetribench.engine.spans import spans
from tetribench.kv.links import Medium, Memory, Operation
from tetribench.kv.links.nixl import Nixl
from tetribench.kv.links.shared_memory import SharedMemory
from tetribench.kv.links.tcp import Tcp

PAGE_BYTES = 16 * 2**10
NUM_PAGES = 4096
NUM_BYTES = NUM_PAGES * PAGE_BYTES
NIXL = pytest.mark.skipif(importlib.util.find_spec("nixl_cu13") is None, reason="needs the package nixl-cu13")
NUM_WARM_UP = 2
NUM_ROUNDS = 20
MEDIA: list[Medium] = [
    Memory(),
    Memory(operation=Operation.read),
    SharedMemory(),
    Tcp(),
    Nixl(),
    Nixl(operation=Operation.read),
]


def make_pool() -> TorchKVPool:
    torch.set_num_threads(1)
    shape = Model(name="pages", num_layers=2, hidden_size=64, num_heads=1, num_kv_heads=1).shape()
    pool = TorchKVPool.allocate(NUM_PAGES, 16, shape, torch.device("cpu"), torch.float32)
    assert pool.block_bytes == PAGE_BYTES
    return pool


def targets(are_neighbours: bool) -> list[int]:
    ids = list(range(NUM_PAGES))
    if not are_neighbours:
        random.Random(0).shuffle(ids)
    return ids


RAW: dict[str, Callable[[int], AbstractContextManager[Move]]] = {
    "memory": memcpy,
    "shared_memory": memcpy,
    "tcp": tcp,
    "nixl write": partial(nixl, "WRITE"),
    "nixl read": partial(nixl, "READ"),
}
"""By medium, or by its name where its verb matters."""


def compared() -> Iterator[object]:
    """Nothing that has 4,096 pieces to name to NIXL can be as fast as one of it; so they are held to both."""
    scattered = spans(range(NUM_PAGES), targets(are_neighbours=False), PAGE_BYTES)
    for medium in MEDIA:
        is_nixl = isinstance(medium, Nixl)
        raw = RAW[medium.name if is_nixl else medium.name.split()[0]]
        for order, are_neighbours in {"run": True, "scattered": False}.items():
            row = f"link, {medium.name}, {order}"
            yield pytest.param(medium, are_neighbours, raw, row, id=row, marks=[NIXL] if is_nixl else [])
        if isinstance(medium, Nixl):
            alike = partial(nixl, medium.operation.name.upper(), pieces=scattered)
            row = f"link, {medium.name}, scattered, over the same pieces"
            yield pytest.param(medium, False, alike, row, id=row, marks=[NIXL])


def seconds(move: Move) -> float:
    started_s = time.perf_counter()
    move()
    return time.perf_counter() - started_s


@pytest.mark.parametrize(("medium", "are_neighbours", "raw", "row"), compared())
def test_move(
    benchmark: BenchmarkFixture,
    medium: Medium,
    are_neighbours: bool,
    raw: Callable[[int], AbstractContextManager[Move]],
    row: str,
) -> None:
    remote, pool, target_ids = Remote(medium, make_pool), make_pool(), targets(are_neighbours)
    ratios: list[float] = []
    speeds: list[tuple[float, float]] = []
    with asyncio.Runner() as runner, raw(NUM_BYTES) as move_bare:
        link = medium.build(pool, WallClock())
        runner.run(link.open())
        link.connect({"peer": remote.handle})

        def move() -> None:
            assert runner.run(link.move("peer", range(NUM_PAGES), target_ids)) == NUM_BYTES

        def one_round() -> None:
            bare_s, own_s = seconds(move_bare), seconds(move)
            ratios.append(bare_s / own_s)
            speeds.append((NUM_BYTES / own_s / 1e9, NUM_BYTES / bare_s / 1e9))

        for _ in range(NUM_WARM_UP):
            move_bare()
            move()
        benchmark.pedantic(one_round, rounds=NUM_ROUNDS)  # type: ignore[no-untyped-call]
        link.close()
    remote.close()
    benchmark.extra_info |= {"marks": [{"row": row, "rounds": ratios}], "GB/s, link and bare": speeds}
