"""Connections to servers: each carries one request at a time, and is kept for the next one."""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

from tetribench.servers.refused import Refused

KEEP_ALIVE_S = 2.0
"""Servers close idle connections after five seconds; a request on one that is just being closed would be lost."""


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
    """Takes in what all sockets have before any of it is read, so that no stream's chunk waits for another's to be read.

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


class Pool:
    """Connections by address. A request on an idle one goes out at once."""

    def __init__(self, inbox: Inbox, connect_timeout_s: float) -> None:
        self._inbox = inbox
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Address, list[Connection]] = {}
        self._all: WeakSet[Connection] = WeakSet()

    def idle(self, address: Address) -> Connection | None:
        """One that was used a moment ago, if there is one."""
        waiting = self._idle.get(address, [])
        while waiting:
            connection = waiting.pop()
            if connection.is_open and time.monotonic() - connection.idle_since_s < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None

    async def connect(self, address: Address) -> Connection:
        """Raises Refused."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._inbox),
                    address.host,
                    address.port,
                    ssl=self._security if address.is_secure else None,
                )
        except TimeoutError:
            raise Refused(f"no connection within {self._connect_timeout_s:g} s") from None
        except OSError as error:  # errors of TLS among them
            raise Refused(f"cannot connect: {error}") from None
        self._all.add(connection)
        return connection

    @cached_property
    def _security(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def give_back(self, address: Address, connection: Connection) -> None:
        """It has carried its response."""
        connection.exchange = None
        connection.idle_since_s = time.monotonic()
        self._idle.setdefault(address, []).append(connection)

    def close(self) -> None:
        for connection in self._all:
            connection.abort()
