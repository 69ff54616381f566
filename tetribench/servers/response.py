"""A response of HTTP/1.1, read as its bytes come."""

from collections.abc import Callable
from enum import Enum, auto

from tetribench.servers.refused import Refused

MAX_HEAD_BYTES = 65536
"""Where a head, a chunk's size or what follows the last chunk is longer, this is no HTTP."""


class _Part(Enum):
    head = auto()
    whole = auto()
    chunks = auto()
    trailer = auto()
    until_closed = auto()
    ended = auto()


class Response:
    """Hands the body on to `take` in the pieces in which it comes; a chunk of the transfer is handed on whole.

    `feed` and `close` raise Refused for what is no response.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._part = _Part.head
        self._rest = b""
        self._num_missing = 0
        self._stays_open = False
        self.status = 0

    @property
    def has_ended(self) -> bool:
        return self._part is _Part.ended

    @property
    def leaves_open(self) -> bool:
        """Whether the connection can carry another one."""
        return self.has_ended and self._stays_open and not self._rest

    def feed(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self._part is _Part.head:
            data = self._head(data)
        match self._part:
            case _Part.chunks:
                self._chunks(data)
            case _Part.whole:
                self._whole(data)
            case _Part.trailer:
                self._trailer(data)
            case _Part.until_closed:
                if data:
                    self._take(data)
            case _Part.head | _Part.ended:
                self._rest = data

    def close(self) -> None:
        """No more will come."""
        if self._part is _Part.until_closed:
            self._part = _Part.ended
        if not self.has_ended:
            raise Refused("connection lost: the server closed it")

    def _head(self, data: bytes) -> bytes:
        """What follows the head; where it is not there in whole, that is all there is."""
        while self._part is _Part.head:
            head, blank, rest = data.partition(b"\r\n\r\n")
            if not blank:
                self._check_length(data)
                return data
            data = rest
            first, *lines = head.split(b"\r\n")
            version, _, status = first.partition(b" ")
            if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
                raise Refused(f"what came is no HTTP: {first[:80]!r}")
            self.status = int(status[:3])
            if self.status >= 200:  # the others announce it
                self._begin(version, dict(_field(line) for line in lines))
        return data

    def _begin(self, version: bytes, fields: dict[bytes, bytes]) -> None:
        self._stays_open = version == b"HTTP/1.1" and fields.get(b"connection", b"").lower() != b"close"
        length = fields.get(b"content-length", b"")
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._part = _Part.chunks
        elif self.status in (204, 304) or length == b"0":
            self._part = _Part.ended
        elif length:
            self._part, self._num_missing = _Part.whole, _number(length, 10)
        else:
            self._part, self._stays_open = _Part.until_closed, False

    def _whole(self, data: bytes) -> None:
        body, self._rest = data[: self._num_missing], data[self._num_missing :]
        self._num_missing -= len(body)
        if self._num_missing == 0:
            self._part = _Part.ended
        if body:
            self._take(body)

    def _chunks(self, data: bytes) -> None:
        start = 0
        while (end := data.find(b"\r\n", start)) >= 0:
            size = _number(data[start:end].partition(b";")[0], 16)
            if size == 0:
                self._part = _Part.trailer
                self._trailer(data[end:])
                return
            if len(data) < end + size + 4:
                break
            self._take(data[end + 2 : end + 2 + size])
            start = end + size + 4
        else:
            self._check_length(data[start:])
        self._rest = data[start:]

    def _trailer(self, data: bytes) -> None:
        """From the end of the last chunk's size to an empty line."""
        _, blank, rest = data.partition(b"\r\n\r\n")
        if blank:
            self._part, self._rest = _Part.ended, rest
        else:
            self._check_length(data)
            self._rest = data

    def _check_length(self, data: bytes) -> None:
        if len(data) > MAX_HEAD_BYTES:
            raise Refused(f"what came is no HTTP: {data[:80]!r}")


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip()


def _number(digits: bytes, base: int) -> int:
    try:
        if digits.strip().isalnum():  # `int` takes signs and underscores
            return int(digits, base)
    except ValueError:
        pass
    raise Refused(f"what came is no HTTP: {digits[:80]!r} is no length")
