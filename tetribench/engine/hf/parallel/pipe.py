"""Messages from the first rank to another, over the pipe that is the other's standard input."""

import os
import struct

_LENGTH = struct.Struct("<Q")


def write_message(descriptor: int, message: bytes) -> None:
    """All of it. Raises BrokenPipeError when the reader is gone."""
    left = memoryview(_LENGTH.pack(len(message)) + message)
    while left:
        left = left[os.write(descriptor, left) :]


def read_message(descriptor: int) -> bytes | None:
    """Waits for it; None when the writer is gone."""
    length = _read(descriptor, _LENGTH.size)
    return None if length is None else _read(descriptor, _LENGTH.unpack(length)[0])


def _read(descriptor: int, num_bytes: int) -> bytes | None:
    """Not through a buffered file, whose lock a thread would still hold when the interpreter ends."""
    found = bytearray()
    while len(found) < num_bytes:
        piece = os.read(descriptor, num_bytes - len(found))
        if not piece:
            return None
        found += piece
    return bytes(found)
