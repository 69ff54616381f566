"""Connections to servers: each carries one request at a time, and is kept for the next one.

To open one takes ten times as long as to send a request on it, and the requests of a burst wait for each other.
"""

import asyncio
import errno
import os
import socket
import ssl
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

from tetribench.servers.refused import Refused

KEEP_ALIVE_S = 2.0
"""Servers close idle connections after five seconds; a request on one that is just being closed would be lost."""

MAX_REASON = 200
"""Characters of an error's text that go into a reason."""

Place = tuple[Any, ...]
"""Of the socket module: an IP address, a port and what else its family has."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a connection goes."""

    host: str
    port: int
    is_secure: bool

    @classmethod
    def of(cls, url: str) -> "tuple[Address, str]":
        """With what is asked for there."""
        parts = urlsplit(url)
        is_secure = parts.scheme == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname or "", parts.port or (443 if is_secure else 80), is_secure), target


class Exchange(Protocol):
    """A request and its response."""

    def received(self, data: bytes) -> None:
        """More of the response."""

    def lost(self, error: Exception | None) -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """Hands what comes to `inbox`, to be looked at once all that has come is taken in."""

    def __init__(self, inbox: "Inbox") -> None:
        self._inbox = inbox
        self._transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.idle_since_s = 0.0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._inbox.put(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._inbox.put(self, error)

    def send(self, request: bytes, exchange: Exchange) -> None:
        assert self._transport is not None and self.exchange is None
        self.exchange = exchange
        self._transport.write(request)

    def abort(self) -> None:
        """What still comes is nobody's."""
        self.exchange = None
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


class Inbox:
    """Takes in what all sockets have before any of it is read: no chunk waits until those before it have been read.

    `after` is called when what has come at once has been read.
    """

    def __init__(self, after: Callable[[], None]) -> None:
        self._after = after
        self._arrived: list[tuple[Connection, bytes | Exception | None]] = []

    def put(self, connection: Connection, arrived: bytes | Exception | None) -> None:
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._read)
        self._arrived.append((connection, arrived))

    def _read(self) -> None:
        arrived, self._arrived = self._arrived, []
        for connection, what in arrived:
            exchange = connection.exchange
            if exchange is None:
                connection.abort()  # nothing was asked
            elif isinstance(what, bytes):
                exchange.received(what)
            else:
                connection.exchange = None
                exchange.lost(what)
        self._after()


class Dial:
    """A connection in the making: the request goes out the moment it is there, before anybody can read from it.

    `connected` is done then, or has the error; `unsent` is what did not fit.
    """

    def __init__(self, family: int, place: Place, request: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self.unsent = request
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        code = self.socket.connect_ex(place)
        self._send(0 if code == errno.EINPROGRESS else code)

    def _send(self, code: int) -> None:
        """On this machine a connection is there when `connect` returns, though it says that it is in progress."""
        try:
            if code:
                raise OSError(code, os.strerror(code))
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            self._loop.add_writer(self.socket, self._decided)
        except OSError as error:
            self.connected.set_exception(error)
        else:
            self.connected.set_result(None)

    def _decided(self) -> None:
        self._loop.remove_writer(self.socket)
        self._send(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.remove_writer(self.socket)
            self.socket.close()


class Pool:
    """Connections by address. A request on an idle one goes out at once, on a new one as soon as can be."""

    def __init__(self, inbox: Inbox, connect_timeout_s: float) -> None:
        self._inbox = inbox
        self._connect_timeout_s = connect_timeout_s
        self._idle: defaultdict[Address, deque[Connection]] = defaultdict(deque)
        self._all: WeakSet[Connection] = WeakSet()
        self._places: dict[Address, tuple[int, Place]] = {}
        """Where addresses have turned out to be; to look a name up takes a thread."""

    async def open(self, address: Address, number: int) -> None:
        """As many as can be opened; a request that finds none will say why."""

        async def one() -> None:
            with suppress(Refused):
                self.give_back(address, await self.connect(address, self.dial(address, b"")))

        await asyncio.gather(*(one() for _ in range(number)))

    def idle(self, address: Address) -> Connection | None:
        """One that was opened or used a moment ago, if there is one: the first of them, because a server that takes one
        connection at a time waits for its request."""
        waiting = self._idle[address]
        while waiting:
            connection = waiting.popleft()
            if connection.is_open and time.monotonic() - connection.idle_since_s < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None

    def dial(self, address: Address, request: bytes) -> Dial | None:
        """Where that can be done at once: not for the first time, and not for TLS, which has much to say before."""
        if address.is_secure or address not in self._places:
            return None
        return Dial(*self._places[address], request)

    async def connect(self, address: Address, dial: Dial | None) -> Connection:
        """Raises Refused."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await (self._reach(address) if dial is None else self._attach(dial))
        except TimeoutError:
            raise Refused(f"no connection within {self._connect_timeout_s:g} s") from None
        except OSError as error:  # errors of TLS among them
            raise Refused(f"cannot connect: {error}"[:MAX_REASON]) from None
        self._all.add(connection)
        return connection

    async def _reach(self, address: Address) -> Connection:
        transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._inbox),
            address.host,
            address.port,
            ssl=self._security if address.is_secure else None,
        )
        reached = transport.get_extra_info("socket")
        self._places[address] = reached.family, reached.getpeername()
        return connection

    async def _attach(self, dial: Dial) -> Connection:
        try:
            await dial.connected
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._inbox), sock=dial.socket
            )
        except BaseException:
            dial.close()
            raise
        return connection

    @cached_property
    def _security(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def give_back(self, address: Address, connection: Connection) -> None:
        """It is new, or has carried its response."""
        connection.exchange = None
        connection.idle_since_s = time.monotonic()
        self._idle[address].append(connection)

    def close(self) -> None:
        for connection in self._all:
            connection.abort()
