"""Connections: how they are kept, reused and given up. The server is written by hand, byte by byte."""

import asyncio
import resource
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tetribench.core.clock import run_real
from tetribench.servers.api import Api
from tetribench.servers.connection import Address
from tetribench.servers.http import Http, Piece
from tetribench.servers.refused import Refused

pytestmark = pytest.mark.alone

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN = chunk(b'data: {"choices": [{"token_ids": [7]}]}\n\n')
DONE = chunk(b"data: [DONE]\n\n")
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request as `answer` does, on connections that it counts."""

    def __init__(self, answer: Answer, security: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._security = security
        self.num_connections = 0
        self.num_closed = 0
        self.requests: list[bytes] = []
        self.url = ""
        self.stop: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self._security)
        scheme = "http" if self._security is None else "https"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/completions"
        self.stop = server.close
        try:
            yield self
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), b": 0")
                self.requests.append(head + await reader.readexactly(int(length.split()[1])))
                await self._answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.num_closed += 1
            writer.close()


def against(
    answer: Answer,
    talk: Callable[[Http, Server], Awaitable[None]],
    api: Api | None = None,
    security: ssl.SSLContext | None = None,
) -> Server:
    server = Server(answer, security)

    async def main() -> None:
        http = Http(api or Api(timeout_s=5.0))
        async with server.serving():
            try:
                await talk(http, server)
            finally:
                await http.close()
                await eventually(lambda: server.num_closed == server.num_connections)

    run_real(asyncio.wait_for(main(), 20.0))
    return server


async def eventually(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + TOKEN + DONE + END)


async def one(http: Http, server: Server) -> list[Piece]:
    pieces: list[Piece] = []
    await http.stream(server.url, {"prompt": [1]}, "request-1", pieces.append)
    return pieces


def test_requests_one_after_the_other_share_a_connection() -> None:
    async def talk(http: Http, server: Server) -> None:
        for _ in range(3):
            assert await one(http, server) == [Piece([7], None)]

    server = against(whole, talk)
    assert server.num_connections == 1 and len(server.requests) == 3
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"prompt":[1]}' and head.startswith(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"X-Request-Id: request-1" in head and b"Authorization" not in head


def test_requests_at_once_have_a_connection_each() -> None:
    async def talk(http: Http, server: Server) -> None:
        await one(http, server)
        await asyncio.gather(*(one(http, server) for _ in range(5)))

    server = against(whole, talk)
    assert len(server.requests) == 6 and server.num_connections == 5


def test_requests_at_once_go_out_on_connections_that_were_opened_ahead() -> None:
    async def talk(http: Http, server: Server) -> None:
        await http.open(server.url, 5)
        await eventually(lambda: server.num_connections == 5)
        await asyncio.gather(*(one(http, server) for _ in range(6)))

    server = against(whole, talk)
    assert len(server.requests) == server.num_connections == 6


def test_connections_are_used_in_the_order_in_which_they_were_opened() -> None:
    """A server that takes one at a time, until it is closed, answers what comes on those that it has not taken yet."""
    turn = asyncio.Lock()

    class OneAtATime(Server):
        async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with turn:
                await super()._talk(reader, writer)

    async def and_close(writer: asyncio.StreamWriter) -> None:
        await whole(writer)
        writer.close()

    async def main() -> None:
        http = Http(Api(timeout_s=5.0))
        async with OneAtATime(and_close).serving() as server:
            await http.open(server.url, 3)
            assert [await one(http, server) for _ in range(3)] == [[Piece([7], None)]] * 3
            assert server.num_connections == 3
        await http.close()

    run_real(asyncio.wait_for(main(), 20.0))


def test_what_cannot_be_opened_ahead_is_told_by_the_request_that_needs_it() -> None:
    async def talk(http: Http, server: Server) -> None:
        server.stop()
        await http.open(server.url, 2)
        await one(http, server)

    with pytest.raises(Refused, match=r"^cannot connect: "):
        against(whole, talk)


def test_long_requests_arrive_whole() -> None:
    """More than a socket takes in at once, on a connection that is open and on those that are just being opened."""
    body = {"prompt": list(range(1_000_000))}

    async def talk(http: Http, server: Server) -> None:
        await one(http, server)
        await asyncio.gather(*(http.stream(server.url, body, "long", lambda piece: None) for _ in range(3)))

    server = against(whole, talk)
    assert len(server.requests) == 4 and server.num_connections == 3
    assert all(request.endswith(b"\r\n\r\n" + msgspec.json.encode(body)) for request in server.requests[1:])


def test_as_many_files_as_the_system_allows() -> None:
    async def talk(http: Http, server: Server) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        against(whole, talk)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_response_that_ends_after_it_is_done_leaves_its_connection_to_the_next() -> None:
    async def in_two_parts(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + TOKEN + DONE)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(END)

    async def talk(http: Http, server: Server) -> None:
        await one(http, server)
        await asyncio.sleep(0.05)
        await one(http, server)

    assert against(in_two_parts, talk).num_connections == 1


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async def and_close(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + TOKEN + DONE + END)
        writer.close()

    async def talk(http: Http, server: Server) -> None:
        for number in range(3):
            assert await one(http, server) == [Piece([7], None)]
            await eventually(lambda closed=number + 1: server.num_closed == closed)  # type: ignore[misc]
            await asyncio.sleep(0.01)

    assert against(and_close, talk).num_connections == 3


def test_who_gives_a_request_up_closes_its_connection() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + TOKEN)

    async def talk(http: Http, server: Server) -> None:
        pieces: list[Piece] = []
        streaming = http.stream(server.url, {}, "request-1", pieces.append)
        await eventually(lambda: bool(pieces))
        streaming.cancel()
        await eventually(lambda: server.num_closed == 1)

    against(silent, talk)


@pytest.mark.parametrize("error", [Refused("not what was asked for"), AssertionError("not what was asked for")])
def test_what_a_stream_raises_ends_it(error: Exception) -> None:
    taken: list[Piece] = []

    def refuse(piece: Piece) -> None:
        taken.append(piece)
        raise error

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + TOKEN + TOKEN + DONE + END)

    async def talk(http: Http, server: Server) -> None:
        with pytest.raises(type(error), match=r"^not what was asked for$"):
            await http.stream(server.url, {}, "request-1", refuse)
        assert len(taken) == 1 and len(await one(http, server)) == 2

    assert against(twice, talk).num_connections == 2


def test_pieces_that_came_at_once_are_told_of_once() -> None:
    told: list[int] = []
    pieces: list[Piece] = []

    async def main() -> None:
        http = Http(Api(), lambda: told.append(len(pieces)))
        async with Server(whole).serving() as server:
            await http.stream(server.url, {}, "request-1", pieces.append)
        await http.close()

    run_real(main())
    assert len(pieces) in told


def test_documents_and_their_errors() -> None:
    async def short(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 12\r\n\r\nnot\nyet here")

    async def talk(http: Http, server: Server) -> None:
        with pytest.raises(Refused, match=r"^HTTP 503: not yet here$"):
            await http.get(server.url + "?a=b")
        with pytest.raises(Refused, match=r"^HTTP 503: "):
            await http.post(server.url, {}, "request-1")

    server = against(short, talk)
    assert server.requests[0].startswith(b"GET /v1/completions?a=b HTTP/1.1\r\n")


def test_a_server_that_is_gone() -> None:
    async def talk(http: Http, server: Server) -> None:
        await one(http, server)
        await http.close()
        server.stop()
        for _ in range(2):
            await one(http, server)

    with pytest.raises(Refused, match=r"^cannot connect: .*[Rr]efused"):
        against(whole, talk)


def test_a_server_that_speaks_no_tls() -> None:
    async def talk(http: Http, server: Server) -> None:
        await http.get(server.url.replace("http:", "https:"))

    with pytest.raises(Refused, match=r"^no connection within 0.2 s$"):
        against(whole, talk, Api(connect_timeout_s=0.2))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate, and is not there")
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", *subject, "-keyout", key, "-out", certificate]
    subprocess.run([*map(str, made)], check=True, capture_output=True)
    security = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    security.load_cert_chain(certificate, key)

    async def talk(http: Http, server: Server) -> None:
        for _ in range(2):
            assert await one(http, server) == [Piece([7], None)]

    with pytest.raises(Refused, match=r"^cannot connect: .*certificate"):
        against(whole, talk, security=security)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert against(whole, talk, security=security).num_connections == 1


@pytest.mark.parametrize(
    ("url", "address", "target"),
    [
        ("http://a/v1", Address("a", 80, False), "/v1"),
        ("https://a:8443/v1?x=1", Address("a", 8443, True), "/v1?x=1"),
        ("https://[::1]", Address("::1", 443, True), "/"),
    ],
)
def test_addresses(url: str, address: Address, target: str) -> None:
    assert Address.of(url) == (address, target)
