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


class _Turns:
    """Of one end: bytes of one pipe are its turns, those that it writes to another are the other end's."""

    def __init__(self, own: int, others: int) -> None:
        self._own, self._others = own, others
        self._poll = select.poll()
        self._poll.register(own, select.POLLIN)
        self._is_over = False

    def take(self) -> None:
        """Wait for the next part. Raises ConnectionError after `give_up`, or when the other end is gone."""
        while not self._is_over:
            if self._poll.poll(_LOOK_UP_MS):
                if os.read(self._own, 1):
                    return
                break
        raise ConnectionError("the other end of the shared memory is gone")

    def hand_on(self) -> None:
        """The part is the other end's."""
        os.write(self._others, b"\0")

    def give_up(self) -> None:
        """Who waits does so no longer."""
        self._is_over = True

    def close(self) -> None:
        """Once nobody waits."""
        os.close(self._own)
        os.close(self._others)


class Filling(_Turns):
    """The turns of the process that has the memory: to begin with, all of its parts are free."""

    def __init__(self, num_parts: int) -> None:
        self._filled_to_read, filled = os.pipe()
        emptied, self._emptied_to_write = os.pipe()
        super().__init__(emptied, filled)
        os.write(self._emptied_to_write, bytes(num_parts))

    def handle(self) -> bytes:
        """For peers in other processes of this machine."""
        return msgspec.msgpack.encode(_TurnsHandle(os.getpid(), self._filled_to_read, self._emptied_to_write))

    def close(self) -> None:
        super().close()
        os.close(self._filled_to_read)
        os.close(self._emptied_to_write)


class Emptying(_Turns):
    """The turns at a peer's memory."""

    def __init__(self, handle: bytes) -> None:
        """Raises OSError when the peer is gone."""
        peer = msgspec.msgpack.decode(handle, type=_TurnsHandle)
        filled = os.open(f"/proc/{peer.pid}/fd/{peer.filled}", os.O_RDONLY)
        try:
            emptied = os.open(f"/proc/{peer.pid}/fd/{peer.emptied}", os.O_WRONLY)
        except OSError:
            os.close(filled)
            raise
        super().__init__(filled, emptied)
