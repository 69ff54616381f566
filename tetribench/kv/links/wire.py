"""How the two ends of a link talk: a request, perhaps with bytes for the receiver's memory, and an answer, over TCP.

One connection for each pair and direction, one request on it at a time. An answer is empty, or says why not.

    request: token (16) | length of the head (4) | head | payload (the head says how long)
    answer:  length of the reason (4) | reason
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from itertools import islice
from typing import Protocol

import msgspec

_FRONT = struct.Struct("!16sI")
_ANSWER = struct.Struct("!I")
_MAX_HEAD_BYTES = 64 * 2**20
_MAX_VIEWS = os.sysconf("SC_IOV_MAX")
_BYTES_AT_ONCE = 2 * 2**20
"""About what a socket's buffer holds: pieces of memory beyond that are named to the kernel for nothing."""


class Address(msgspec.Struct, frozen=True):
    """Where an end listens. Its token keeps out whoever else has been given the port since."""

    host: str
    port: int
    token: bytes


class Session(Protocol):
    """The receiver's side of one connection."""

    def places(self, head: bytes) -> list[memoryview]:
        """Where the payload goes, in order and none empty. Raises ValueError for what must not be written."""

    async def finish(self, head: bytes) -> None:
        """The payload is in place. Raises ValueError or OSError when the request cannot be carried out."""

    def close(self) -> None:
        """The connection has ended."""


class Listener:
    """Accepts connections and serves each with a session of its own."""

    def __init__(self, host: str, new_session: Callable[[], Session]) -> None:
        self._host = host
        self._new_session = new_session
        self._server: asyncio.Server | None = None
        self._receivers: set[_Receiver] = set()
        self._token = os.urandom(16)

    async def open(self) -> None:
        """Raises OSError where the host is not an address of this machine."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self._host, 0, family=socket.AF_INET)

    def _accept(self) -> "_Receiver":
        receiver = _Receiver(self._token, self._new_session(), self._receivers.discard)
        self._receivers.add(receiver)
        return receiver

    @property
    def address(self) -> Address:
        assert self._server is not None, "asked for the address before it was opened"
        return Address(self._host, self._server.sockets[0].getsockname()[1], self._token)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for receiver in list(self._receivers):
            receiver.abort()


class _Receiver(asyncio.BufferedProtocol):
    """Reads straight into whatever is filled next: the front, the head, then the payload's places in memory.

    The transport knows of one place at a time. What has come beyond it is read beside the transport, into many places
    with one call.
    """

    def __init__(self, token: bytes, session: Session, on_end: Callable[["_Receiver"], None]) -> None:
        self._token = token
        self._session = session
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._beside: socket.socket | None = None
        self._is_ended = False
        self._finishing: asyncio.Task[None] | None = None
        self._front = bytearray(_FRONT.size)
        self._head = bytearray()
        self._places: deque[memoryview] = deque([memoryview(self._front)])
        self._next: Callable[[], None] = self._take_front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._beside = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._places[0]

    def buffer_updated(self, num_bytes: int) -> None:
        _advance(self._places, num_bytes)
        if len(self._places) > 1:
            _advance(self._places, self._read_beside())
        if not self._places:
            self._next()

    def _read_beside(self) -> int:
        """Once for each turn of the loop, so that others get theirs. Of an end or an error the transport tells."""
        assert self._beside is not None
        try:
            return self._beside.recvmsg_into(_at_once(self._places))[0]
        except OSError:
            return 0

    def _take_front(self) -> None:
        token, length = _FRONT.unpack(self._front)
        if token != self._token or not 0 < length <= _MAX_HEAD_BYTES:
            self.abort()
            self._places.append(memoryview(self._front))  # the transport wants a buffer once more
            return
        self._head = bytearray(length)
        self._places.append(memoryview(self._head))
        self._next = self._take_head

    def _take_head(self) -> None:
        try:
            self._places.extend(self._session.places(bytes(self._head)))
        except (ValueError, OSError) as error:
            self._answer(str(error))
            self._end_after_answer()
            return
        self._next = self._take_payload
        if not self._places:
            self._take_payload()

    def _take_payload(self) -> None:
        self._finishing = asyncio.get_running_loop().create_task(self._finish(bytes(self._head)))
        self._places.append(memoryview(self._front))
        self._next = self._take_front

    async def _finish(self, head: bytes) -> None:
        try:
            await self._session.finish(head)
        except (ValueError, OSError) as error:
            self._answer(str(error) or type(error).__name__)
        else:
            self._answer("")

    def _answer(self, reason: str) -> None:
        text = reason.encode()
        if self._transport is not None:
            self._transport.write(_ANSWER.pack(len(text)) + text)

    def _end_after_answer(self) -> None:
        """The payload that follows has no place: nothing after it could be understood."""
        self._places.append(memoryview(self._front))
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def abort(self) -> None:
        """No byte is read into memory after this."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def _end(self) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        if self._beside is not None:
            self._beside.close()
        if self._finishing is not None:
            self._finishing.cancel()
        self._session.close()
        self._on_end(self)


class Connection:
    """The sender's side: connects when it is first used, and again after a failure."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._one_at_a_time = asyncio.Lock()
        self._is_closed = False

    async def call(self, head: bytes, payload: SequenceOf[memoryview] = ()) -> None:
        """Send straight from `payload`'s memory and wait for the answer. Raises OSError or EOFError, with the reason
        where the peer gave one; whatever ends it early, the connection does not survive it."""
        async with self._one_at_a_time:
            try:
                connected = await self._connected()
                await self._request(connected, head, payload)
                await _take_answer(connected)
            except BaseException:
                self._end()
                raise

    async def _connected(self) -> socket.socket:
        if self._is_closed:
            raise ConnectionError("the link is closed")
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(self._socket, (self._address.host, self._address.port))
        return self._socket

    async def _request(self, connected: socket.socket, head: bytes, payload: SequenceOf[memoryview]) -> None:
        assert 0 < len(head) <= _MAX_HEAD_BYTES
        front = _FRONT.pack(self._address.token, len(head))
        await _send_all(connected, [memoryview(front), memoryview(head), *payload])

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """A call under way fails at once."""
        self._is_closed = True
        if self._socket is not None and self._one_at_a_time.locked():
            _wake(self._socket)
        else:
            self._end()


def _wake(connected: socket.socket) -> None:
    """End both directions, which wakes whoever waits on the socket; closing it would leave them waiting."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected yet, or not any more: then nobody waits for its bytes
        return


async def _send_all(connected: socket.socket, views: SequenceOf[memoryview]) -> None:
    """As many pieces with one system call as it takes."""
    left = deque(view for view in views if view.nbytes)
    while left:
        try:
            _advance(left, connected.sendmsg(_at_once(left)))
        except BlockingIOError:
            await _writable(connected)


def _at_once(pieces: deque[memoryview]) -> list[memoryview]:
    """The first of them, as many as one system call is to read or write."""
    chosen, num_bytes = [], 0
    for piece in islice(pieces, _MAX_VIEWS):
        chosen.append(piece)
        num_bytes += piece.nbytes
        if num_bytes >= _BYTES_AT_ONCE:
            break
    return chosen


def _advance(pieces: deque[memoryview], num_bytes: int) -> None:
    """That many bytes, from the first of them, have been read or written."""
    while num_bytes:
        first = pieces.popleft()
        if num_bytes < first.nbytes:
            pieces.appendleft(first[num_bytes:])
            return
        num_bytes -= first.nbytes


async def _writable(connected: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(connected, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(connected)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


async def _take_answer(connected: socket.socket) -> None:
    """Raises ConnectionError with the reason that it gives."""
    (length,) = _ANSWER.unpack(await _receive_exactly(connected, _ANSWER.size))
    if length:
        raise ConnectionError((await _receive_exactly(connected, length)).decode())


async def _receive_exactly(connected: socket.socket, num_bytes: int) -> bytes:
    received = b""
    while len(received) < num_bytes:
        part = await asyncio.get_running_loop().sock_recv(connected, num_bytes - len(received))
        if not part:
            raise ConnectionError("it closed the connection")
        received += part
    return received
