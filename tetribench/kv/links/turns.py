"""Turns at the parts of a memory that one process fills and others empty: a byte through a pipe for each part.

A thread waits for its turn, without an event loop between a part and the next.
"""

import os
import select

import msgspec

_LOOK_UP_MS = 10
"""Who waits looks that often whether it still should."""


class _TurnsHandle(msgspec.Struct, frozen=True):
    pid: int
    filled: int
    emptied: int


class _Waiting:
    """For bytes of one pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self.is_over = False

    def take(self) -> None:
        """One byte. Raises ConnectionError where none will come."""
        while not self.is_over:
            if self._poll.poll(_LOOK_UP_MS):
                if os.read(self._descriptor, 1):
                    return
                break
        raise ConnectionError("the other end of the shared memory is gone")


class Filling:
    """The turns of the process that has the memory: to begin with, all of its parts are free."""

    def __init__(self, num_parts: int) -> None:
        self._filled_to_read, self._filled = os.pipe()
        self._emptied, self._emptied_to_write = os.pipe()
        self._waiting = _Waiting(self._emptied)
        os.write(self._emptied_to_write, bytes(num_parts))

    def handle(self) -> bytes:
        """For peers in other processes of this machine."""
        return msgspec.msgpack.encode(_TurnsHandle(os.getpid(), self._filled_to_read, self._emptied_to_write))

    def take(self) -> None:
        """Wait until the next part is free. Raises ConnectionError after `give_up`."""
        self._waiting.take()

    def hand_over(self) -> None:
        os.write(self._filled, b"\0")

    def give_up(self) -> None:
        """Nobody empties any more. Who waits does so no longer."""
        self._waiting.is_over = True

    def close(self) -> None:
        """Once nobody waits."""
        for descriptor in (self._filled_to_read, self._filled, self._emptied, self._emptied_to_write):
            os.close(descriptor)


class Emptying:
    """The turns of a peer's memory."""

    def __init__(self, handle: bytes) -> None:
        """Raises OSError when the peer is gone."""
        peer = msgspec.msgpack.decode(handle, type=_TurnsHandle)
        self._filled = os.open(f"/proc/{peer.pid}/fd/{peer.filled}", os.O_RDONLY)
        try:
            self._emptied = os.open(f"/proc/{peer.pid}/fd/{peer.emptied}", os.O_WRONLY)
        except OSError:
            os.close(self._filled)
            raise
        self._waiting = _Waiting(self._filled)

    def take(self) -> None:
        """Wait until the next part is filled. Raises ConnectionError after `give_up`, or when the peer is gone."""
        self._waiting.take()

    def hand_back(self) -> None:
        os.write(self._emptied, b"\0")

    def give_up(self) -> None:
        """Who waits does so no longer."""
        self._waiting.is_over = True

    def close(self) -> None:
        """Once nobody waits."""
        os.close(self._filled)
        os.close(self._emptied)
