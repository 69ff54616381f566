"""A piece of host memory between two pools, for bytes that cannot go straight from one to the other."""

import mmap
import os

import msgspec

from tetribench.engine.base import KVPool

SEGMENT_BYTES = 24 * 2**20
"""Large enough that the turns between filling and emptying it do not show."""


class _SegmentHandle(msgspec.Struct, frozen=True):
    pid: int
    file_descriptor: int
    num_bytes: int


class Segment:
    """An anonymous shared file (memfd), mapped; it ends with the processes that map it."""

    def __init__(self, memory: mmap.mmap, handle: _SegmentHandle) -> None:
        self.view = memoryview(memory)
        self._handle = handle

    @classmethod
    def allocate(cls, num_bytes: int = SEGMENT_BYTES) -> "Segment":
        descriptor = os.memfd_create("tetribench-staging")
        os.ftruncate(descriptor, num_bytes)
        return cls(mmap.mmap(descriptor, num_bytes), _SegmentHandle(os.getpid(), descriptor, num_bytes))

    def handle(self) -> bytes:
        """For peers in other processes of this machine."""
        return msgspec.msgpack.encode(self._handle)

    @classmethod
    def attach(cls, handle: bytes) -> "Segment":
        """Map a peer's segment. Raises OSError when the peer is gone."""
        peer = msgspec.msgpack.decode(handle, type=_SegmentHandle)
        descriptor = os.open(f"/proc/{peer.pid}/fd/{peer.file_descriptor}", os.O_RDWR)
        try:
            return cls(mmap.mmap(descriptor, peer.num_bytes), peer)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """The owner's: nobody maps it anew; those who have mapped it keep it until they let go."""
        os.close(self._handle.file_descriptor)


class Staging:
    """A segment of this process, pinned for the copies of `pool` while it is open."""

    def __init__(self, pool: KVPool, num_bytes: int = SEGMENT_BYTES) -> None:
        self._segment = Segment.allocate(num_bytes)
        self.view = self._segment.view
        self._unpin = pool.pin(self.view)

    def handle(self) -> bytes:
        return self._segment.handle()

    def close(self) -> None:
        self._unpin()
        self._segment.close()
