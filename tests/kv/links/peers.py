"""Pools of plain bytes, and instances' ends of links in processes of their own, without an engine."""

import asyncio
import ctypes
import mmap
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

import msgspec

from tetribench.core.clock import Clock, WallClock
from tetribench.engine.base import KVPool, Region
from tetribench.engine.spans import Spans
from tetribench.kv.links.base import Link, Medium
from tetribench.kv.links.shared_memory import SharedMemory, SharedMemoryLink
from tetribench.kv.links.tcp import Tcp, TcpLink
from tetribench.kv.links.view import view_of

BLOCK_BYTES = 96


class BytesPool:
    """`num_blocks` blocks in an anonymous file that other processes can map, as an engine's pool on the CPU."""

    def __init__(
        self, num_blocks: int, block_bytes: int = BLOCK_BYTES, fill: int = 0, source: int | None = None
    ) -> None:
        self.block_bytes = block_bytes
        self._descriptor = os.memfd_create("test-pool") if source is None else source
        num_bytes = num_blocks * block_bytes
        os.ftruncate(self._descriptor, num_bytes)
        self._map = mmap.mmap(self._descriptor, num_bytes)
        self.bytes = memoryview(self._map)
        if source is None:
            self.bytes[:] = bytes([fill]) * num_bytes

    def __del__(self) -> None:
        os.close(self._descriptor)

    def block(self, block_id: int) -> bytes:
        return bytes(self.bytes[block_id * self.block_bytes : (block_id + 1) * self.block_bytes])

    @property
    def num_bytes(self) -> int:
        return self.bytes.nbytes

    @property
    def region(self) -> Region:
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        return Region(address, self.bytes.nbytes, None)

    def handle(self) -> bytes:
        return msgspec.msgpack.encode((os.getpid(), self._descriptor, self.bytes.nbytes))

    def attach(self, handle: bytes) -> "BytesPool":
        pid, descriptor, num_bytes = msgspec.msgpack.decode(handle, type=tuple[int, int, int])
        opened = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
        return BytesPool(num_bytes // self.block_bytes, self.block_bytes, source=opened)

    def copy_to(self, peer: KVPool, spans: Spans) -> None:
        assert isinstance(peer, BytesPool)
        self.gather(peer.bytes, spans)

    def gather(self, buffer: memoryview, spans: Spans) -> None:
        for source, target, num_bytes in spans:
            buffer[target : target + num_bytes] = self.bytes[source : source + num_bytes]

    def scatter(self, buffer: memoryview, spans: Spans) -> None:
        for source, target, num_bytes in spans:
            self.bytes[target : target + num_bytes] = buffer[source : source + num_bytes]

    def pin(self, buffer: memoryview) -> Callable[[], None]:
        return lambda: None


class SmallSegment(SharedMemory):
    """With a segment that a block does not fit into."""

    def build(self, pool: KVPool, clock: Clock) -> Link:
        return SharedMemoryLink(pool, clock, self.speed, self.timeout_s, BLOCK_BYTES - 31)


class BouncedTcp(Tcp):
    """As between accelerators, by way of small buffers at both ends."""

    def build(self, pool: KVPool, clock: Clock) -> Link:
        return TcpLink(pool, clock, self.speed, self.timeout_s, self.host, BLOCK_BYTES - 31)


class Remote:
    """An instance's end of a link, with a pool that `make_pool` makes, in a process of its own."""

    def __init__(self, medium: Medium, make_pool: Callable[[], KVPool]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, medium, make_pool), daemon=True)
        self._process.start()
        theirs.close()
        self.handle: bytes = self._pipe.recv()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def contents(self) -> bytes:
        """Of the whole pool."""
        return bytes(self._ask("contents"))

    def _ask(self, command: str) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()

    def kill(self) -> None:
        """Without a word, as a crash does."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Ends by itself where it can; its exit code must then be 0."""
        if self._process.is_alive():
            self._pipe.send("stop")
        self._process.join(20)
        assert self._process.exitcode is not None, "it does not end"


def _serve(pipe: Pipe, medium: Medium, make_pool: Callable[[], KVPool]) -> None:
    asyncio.run(_serve_until_stopped(pipe, medium, make_pool()))


async def _serve_until_stopped(pipe: Pipe, medium: Medium, pool: KVPool) -> None:
    link = medium.build(pool, WallClock())
    await link.open()
    pipe.send(link.handle())
    while await asyncio.to_thread(pipe.recv) != "stop":
        pipe.send(bytes(view_of(pool)))
    link.close()
