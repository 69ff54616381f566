"""The client's side of HTTP: streamed completions, and small documents about a server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec

from tetribench.servers.api import Api
from tetribench.servers.refused import Refused

KEEP_ALIVE_S = 2.0
"""Servers close idle connections after five seconds; a request on one that is just being closed would be lost."""

DOCUMENT_TIMEOUT_S = 30.0
"""vLLM collects what it says of its machine when it is first asked, which takes seconds."""

MAX_REASON = 200
"""Characters of an error's text that go into a reason."""

MAX_STREAMS = 900
"""The client waits on `select`, which knows file numbers below 1024."""


class Piece(NamedTuple):
    """What one chunk of a stream brings."""

    token_ids: list[int]
    finish_reason: str | None


class _Choice(msgspec.Struct):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_DONE = b"[DONE]"


class Http:
    """One session for all servers of a run. Every failure is raised as Refused."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._num_streams = 0
        headers = {"Content-Type": "application/json"}
        if api.key is not None:
            headers["Authorization"] = f"Bearer {api.key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(sock_connect=api.connect_timeout_s, sock_read=api.timeout_s),
            headers=headers,
        )

    async def get(self, url: str) -> bytes:
        """A small document."""
        timeout = aiohttp.ClientTimeout(total=DOCUMENT_TIMEOUT_S)
        with self._as_reasons():
            async with self._session.get(url, timeout=timeout) as response:
                await _check(response)
                return await response.read()

    async def post(self, url: str, body: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An answer in one piece."""
        with self._as_reasons():
            async with self._post(url, body, request_id) as response:
                await _check(response)
                return msgspec.json.decode(await response.read(), type=dict[str, Any])

    async def stream(self, url: str, body: dict[str, Any], request_id: str) -> AsyncIterator[Piece]:
        """Pieces as they come, until the server says that it is done."""
        if self._num_streams >= MAX_STREAMS:
            raise Refused(f"the client has {MAX_STREAMS} streams open, which is its limit")
        self._num_streams += 1
        try:
            with self._as_reasons():
                async with self._post(url, body, request_id) as response:
                    await _check(response)
                    async for data in _events(response.content):
                        if data == _DONE:
                            return
                        for piece in _pieces(data):
                            yield piece
            raise Refused("the stream ended before it was done")
        finally:
            self._num_streams -= 1

    def _post(self, url: str, body: dict[str, Any], request_id: str) -> Any:
        return self._session.post(url, data=msgspec.json.encode(body), headers={"X-Request-Id": request_id})

    @contextmanager
    def _as_reasons(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ConnectionTimeoutError:
            raise Refused(f"no connection within {self._api.connect_timeout_s:g} s") from None
        except TimeoutError:
            raise Refused(f"nothing came for {self._api.timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise Refused(f"cannot connect: {error.os_error}"[:MAX_REASON]) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refused(f"connection lost: {error}"[:MAX_REASON]) from None
        except msgspec.DecodeError as error:
            raise Refused(f"what came is no completion: {error}"[:MAX_REASON]) from None

    async def close(self) -> None:
        await self._session.close()


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        text = " ".join((await response.text(errors="replace")).split())
        raise Refused(f"HTTP {response.status}: {text}"[:MAX_REASON])


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The data of server-sent events, each of which has one line here.

    Not by the reader's own lines, whose length is limited: a first chunk may repeat the whole prompt.
    """
    rest = b""
    async for data in content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def _pieces(data: bytes) -> Iterator[Piece]:
    chunk = _CHUNK.decode(data)
    if chunk.error is not None:
        raise Refused(f"the server broke off: {_text_of(chunk.error)}"[:MAX_REASON])
    for choice in chunk.choices:
        token_ids = choice.token_ids
        yield Piece([0] * bool(choice.text) if token_ids is None else token_ids, choice.finish_reason)


def _text_of(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
