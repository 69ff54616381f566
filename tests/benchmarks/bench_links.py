"""What a link carries between two processes of this machine: `make bench` prints GB/s as extra_info.

64 MiB in pages of 16 KiB, of which a 512-token chunk of a small model is made, as one run of neighbours and scattered
so that no two of them are; against a copy within one process. Processes share the machine's cores, as instances do.
"""

import asyncio
import importlib.util
import random

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tests.kv.links.peers import Remote
from tetribench.core.clock import WallClock
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.model import Model
from tetribench.kv.links import Medium, Memory, Operation
from tetribench.kv.links.nixl import Nixl
from tetribench.kv.links.shared_memory import SharedMemory
from tetribench.kv.links.tcp import Tcp

PAGE_BYTES = 16 * 2**10
NUM_PAGES = 4096
NUM_BYTES = NUM_PAGES * PAGE_BYTES
NIXL = pytest.mark.skipif(importlib.util.find_spec("nixl_cu13") is None, reason="needs the package nixl-cu13")
MEDIA = [
    Memory(),
    Memory(operation=Operation.read),
    SharedMemory(),
    Tcp(),
    pytest.param(Nixl(), marks=NIXL),
    pytest.param(Nixl(operation=Operation.read), marks=NIXL),
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


def note(benchmark: BenchmarkFixture) -> None:
    assert benchmark.stats is not None
    stats = benchmark.stats.stats
    figures = [NUM_BYTES / seconds / 1e9 for seconds in (stats.median, stats.max, stats.min)]
    benchmark.extra_info["GB/s median, lowest, highest"] = [round(figure, 2) for figure in figures]


@pytest.mark.parametrize("are_neighbours", [True, False], ids=["run", "scattered"])
@pytest.mark.parametrize("medium", MEDIA, ids=lambda medium: medium.name.replace(" ", "-"))
def test_move(benchmark: BenchmarkFixture, medium: Medium, are_neighbours: bool) -> None:
    remote, pool, target_ids = Remote(medium, make_pool), make_pool(), targets(are_neighbours)
    with asyncio.Runner() as runner:
        link = medium.build(pool, WallClock())
        runner.run(link.open())
        link.connect({"peer": remote.handle})

        def move() -> None:
            assert runner.run(link.move("peer", range(NUM_PAGES), target_ids)) == NUM_BYTES

        benchmark.pedantic(move, rounds=20, warmup_rounds=2)  # type: ignore[no-untyped-call]
        link.close()
    remote.close()
    note(benchmark)


def test_copy_within_a_process(benchmark: BenchmarkFixture) -> None:
    source, target = (torch.ones(NUM_BYTES, dtype=torch.uint8) for _ in range(2))
    torch.set_num_threads(1)
    benchmark.pedantic(target.copy_, (source,), rounds=20, warmup_rounds=2)  # type: ignore[no-untyped-call]
    note(benchmark)
