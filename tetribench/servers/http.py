"""The client's side of HTTP: streamed completions, and small documents about a server.

Our own, because a client that is busy reads the clock late: a request leaves with the call that asks for it, and what
has come on many streams at once is all taken in before any of it is looked at.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVarTuple

import msgspec

from tetribench.servers.api import Api
from tetribench.servers.connection import MAX_REASON, Address, Connection, Dial, Inbox, Pool
from tetribench.servers.refused import Refused
from tetribench.servers.response import Response

Arguments = TypeVarTuple("Arguments")

DOCUMENT_TIMEOUT_S = 30.0
"""vLLM collects what it says of its machine when it is first asked, which takes seconds."""


class Piece(NamedTuple):
    """What one chunk of a stream brings."""

    token_ids: list[int]
    finish_reason: str | None


class _Choice(msgspec.Struct, gc=False):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_DONE = b"[DONE]"


class _Exchange:
    """One request, which ends with `ended`: with its result, or with Refused; cancelling it closes the connection."""

    def __init__(self, http: "Http", address: Address, timeout_s: float) -> None:
        self._http = http
        self._address = address
        self._timeout_s = timeout_s
        self._response = Response(self._take)
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._body = bytearray()
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bytes] = loop.create_future()
        self.ended.add_done_callback(self._let_go)
        self._heard_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, request: bytes) -> None:
        """At once where a connection is open; else when there is one."""
        connection = self._http.pool.idle(self._address)
        if connection is not None:
            self._send(connection, request)
        else:
            dial = self._http.pool.dial(self._address, request)
            self._connecting = asyncio.get_running_loop().create_task(self._connect(dial, request))

    async def _connect(self, dial: Dial | None, request: bytes) -> None:
        try:
            connection = await self._http.pool.connect(self._address, dial)
        except Refused as refused:
            self._fail(refused)
        else:
            self._send(connection, request if dial is None else dial.unsent)

    def _send(self, connection: Connection, request: bytes) -> None:
        self._connection = connection
        connection.send(request, self)
        self._heard_s = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._check_silence)

    def received(self, data: bytes) -> None:
        self._heard_s = time.monotonic()
        self._read(self._response.feed, data)

    def lost(self, error: Exception | None) -> None:
        self._connection = None
        if error is not None:
            self._fail(Refused(f"connection lost: {error}"[:MAX_REASON]))
        else:
            self._read(self._response.close)

    def _read(self, step: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """What goes wrong is told to whoever waits, not to the loop that brought the bytes."""
        if self._has_failed:
            return
        try:
            step(*arguments)
            if self._response.has_ended:
                self._finish()
        except Refused as refused:
            self._fail(Refused(str(refused)[:MAX_REASON]))
        except Exception as error:
            self._fail(error)

    @property
    def _has_failed(self) -> bool:
        return self.ended.cancelled() or (self.ended.done() and self.ended.exception() is not None)

    def _take(self, data: bytes) -> None:
        self._body += data

    def _finish(self) -> None:
        """The response is there in whole."""
        if self._response.status != 200:
            text = " ".join(self._body.decode(errors="replace").split())
            raise Refused(f"HTTP {self._response.status}: {text}")
        self._succeed(bytes(self._body))

    def _succeed(self, result: bytes) -> None:
        if not self.ended.done():
            self.ended.set_result(result)

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def _check_silence(self) -> None:
        left_s = self._heard_s + self._timeout_s - time.monotonic()
        if left_s <= 0:
            self._fail(Refused(f"nothing came for {self._timeout_s:g} s"))
        else:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._check_silence)

    def _let_go(self, ended: "asyncio.Future[bytes]") -> None:
        """What is known before the response has ended in whole waits for its end, to carry the next one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._has_failed:
            if self._connecting is not None:
                self._connecting.cancel()
            if self._connection is not None:
                self._connection.abort()
        elif self._response.has_ended:
            self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._response.leaves_open:
            self._http.pool.give_back(self._address, connection)
        elif connection is not None:
            connection.abort()


class _Stream(_Exchange):
    """Hands each piece to `take_piece`, which may raise Refused, until the server says that it is done."""

    def __init__(self, http: "Http", address: Address, timeout_s: float, take_piece: Callable[[Piece], None]) -> None:
        super().__init__(http, address, timeout_s)
        self._take_piece = take_piece
        self._line = b""
        self._is_done = False

    def _take(self, data: bytes) -> None:
        """Events have one line each here; a line may come in several parts, and first ones may repeat the prompt."""
        if self._response.status != 200:
            super()._take(data)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take_event(line[5:].strip())

    def _take_event(self, data: bytes) -> None:
        if self._is_done:
            return
        if data == _DONE:
            self._is_done = True
            return
        try:
            chunk = _CHUNK.decode(data)
        except msgspec.DecodeError as error:
            raise Refused(f"what came is no completion: {error}") from None
        if chunk.error is not None:
            raise Refused(f"the server broke off: {_text_of(chunk.error)}")
        for choice in chunk.choices:
            token_ids = choice.token_ids
            self._take_piece(Piece([0] * bool(choice.text) if token_ids is None else token_ids, choice.finish_reason))

    def _read(self, step: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        super()._read(step, *arguments)
        if self._is_done and not self._has_failed:
            self._succeed(b"")
            if self._response.has_ended:
                self._give_back()

    def _finish(self) -> None:
        if self._response.status == 200 and not self._is_done:
            raise Refused("the stream ended before it was done")
        super()._finish()


class Http:
    """One session for all servers of a run. Every failure is raised as Refused.

    `after_pieces` is called when the pieces that have come at one time have been handed over.
    """

    def __init__(self, api: Api, after_pieces: Callable[[], None] = lambda: None) -> None:
        self._api = api
        self._authorization = "" if api.key is None else f"Authorization: Bearer {api.key}\r\n"
        self._addresses: dict[str, tuple[Address, str]] = {}
        self.pool = Pool(Inbox(after_pieces), api.connect_timeout_s)
        _allow_files()

    async def open(self, url: str, number: int) -> None:
        """Connect ahead of so many requests that will come at once."""
        await self.pool.open(self._place(url)[0], number)

    async def get(self, url: str) -> bytes:
        """A small document."""
        address, target = self._place(url)
        exchange = _Exchange(self, address, DOCUMENT_TIMEOUT_S)
        return await self._start(exchange, self._request("GET", address, target, "", b""))

    async def post(self, url: str, body: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An answer in one piece."""
        exchange = _Exchange(self, self._place(url)[0], self._api.timeout_s)
        answer = await self._start(exchange, self._posted(url, body, request_id))
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Refused(f"what came is no completion: {error}"[:MAX_REASON]) from None

    def stream(
        self, url: str, body: dict[str, Any], request_id: str, take_piece: Callable[[Piece], None]
    ) -> "asyncio.Future[bytes]":
        """The request goes out with this call. What it returns is done when the server says that it is done; to cancel
        it closes the connection."""
        exchange = _Stream(self, self._place(url)[0], self._api.timeout_s, take_piece)
        return self._start(exchange, self._posted(url, body, request_id))

    def _start(self, exchange: _Exchange, request: bytes) -> "asyncio.Future[bytes]":
        exchange.start(request)
        return exchange.ended

    def _place(self, url: str) -> tuple[Address, str]:
        if url not in self._addresses:
            self._addresses[url] = Address.of(url)
        return self._addresses[url]

    def _posted(self, url: str, body: dict[str, Any], request_id: str) -> bytes:
        address, target = self._place(url)
        content = msgspec.json.encode(body)
        fields = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nX-Request-Id: {request_id}\r\n"
        return self._request("POST", address, target, fields, content)

    def _request(self, method: str, address: Address, target: str, fields: str, content: bytes) -> bytes:
        host = f"[{address.host}]" if ":" in address.host else address.host
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}:{address.port}\r\n{self._authorization}{fields}\r\n"
        return head.encode() + content

    async def close(self) -> None:
        self.pool.close()
        await asyncio.sleep(0)  # lets transports close their sockets


def _allow_files() -> None:
    """As many as the system lets this process have: each stream is one, and what is set for a start is often 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _text_of(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
