"""A server that computes nothing and keeps a diary: `python null_http.py TTFT_S GAP_S`, which prints its port.

Every completion is streamed on a schedule that begins when the request has come in whole: the first chunk after
`TTFT_S`, each further one after `GAP_S`, one token a chunk. `GET /diary` says what was done since it was last asked.
Only the standard library, one thread and no event loop of asyncio, because what it takes is taken from the client.
"""

import contextlib
import gc
import heapq
import json
import os
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, field

TURN = 16
"""Chunks that are written before it looks for requests: one that waits is not yet received, which is nobody's fault."""

MODEL = "model"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
_WANTS_USAGE = re.compile(rb'"include_usage": *true')
_WANTS_IDS = re.compile(rb'"return_token_ids": *true')
_PROMPT = re.compile(rb'"prompt": *(?:\[([\d, ]*)\]|\["([^"]*)"\]|"([^"]*)")')

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(ids: bytes, finish_reason: bytes) -> bytes:
    """As long as vLLM's."""
    return (
        b'data: {"id":"cmpl-0123456789abcdef0123456789abcdef","object":"text_completion","created":1790000000,'
        b'"model":"model","choices":[{"index":0,"text":" w7","logprobs":null,"finish_reason":%b,"stop_reason":null%b}]}'
        b"\n\n"
    ) % (finish_reason, ids)


_IDS = {False: b"", True: b',"token_ids":[7]'}
_MIDDLE = {has_ids: _chunk(_event(ids, b"null")) for has_ids, ids in _IDS.items()}
_LAST = {has_ids: _chunk(_event(ids, b'"length"')) for has_ids, ids in _IDS.items()}
_DONE = _chunk(b"data: [DONE]\n\n") + _chunk(b"")


def _usage(num_prompt: int, num_output: int) -> bytes:
    usage = {"prompt_tokens": num_prompt, "completion_tokens": num_output, "total_tokens": num_prompt + num_output}
    event = {"id": "cmpl-0", "object": "text_completion", "model": MODEL, "choices": [], "usage": usage}
    return _chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


def _num_prompt(body: bytes) -> int:
    """Ids, or words."""
    prompt = _PROMPT.search(body)
    ids, *texts = prompt.groups() if prompt else (None, None)
    return sum(len(text.split()) for text in texts if text) if ids is None else ids.count(b",") + 1


@dataclass(slots=True, eq=False)
class _Connection:
    """Its client, and the response that it is given, if any."""

    socket: socket.socket
    received: bytes = b""
    num_tokens: int = 0
    has_ids: bool = False
    end: bytes = b""
    due_s: float = 0.0
    received_s: float = 0.0
    written_s: list[float] = field(default_factory=list)


class NullHttp:
    """`ttft_s` and `gap_s` as the module says; times are of the monotonic clock, which is one for all processes."""

    def __init__(self, ttft_s: float, gap_s: float) -> None:
        self._ttft_s = ttft_s
        self._gap_s = gap_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._due: list[tuple[float, int, _Connection]] = []
        self._order = 0
        self._responses: list[dict[str, object]] = []
        self._late_s: list[float] = []
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Until it is killed. epoll waits in whole milliseconds, so `select` waits for it."""
        while True:
            wait_s = max(self._due[0][0] - time.monotonic(), 0.0) if self._due else None
            select.select([self._epoll.fileno()], [], [], wait_s)
            for number, _ in self._epoll.poll(0):
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._read(self._connections[number])
            for _ in range(TURN):
                if not self._due or self._due[0][0] > time.monotonic():
                    break
                self._write(heapq.heappop(self._due)[2])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[accepted.fileno()] = _Connection(accepted)
                self._epoll.register(accepted, select.EPOLLIN)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        connection.socket.close()
        self._due = [entry for entry in self._due if entry[2] is not connection]
        heapq.heapify(self._due)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        head, blank, body = connection.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < (int(length[1]) if length else 0):
            return
        received_s = time.monotonic()
        connection.received = b""
        if head.startswith(b"POST"):
            self._begin(connection, body, received_s)
        else:
            self._answer(connection, head.split(b" ", 2)[1].decode())

    def _answer(self, connection: _Connection, path: str) -> None:
        document: object = {}
        if path == "/diary":
            document = {"responses": self._responses, "late_s": self._late_s}
            self._responses, self._late_s = [], []
        elif path == "/v1/models":
            document = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        content = json.dumps(document).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
        connection.socket.setblocking(True)  # the diary is longer than a socket's buffer, and nothing else goes on
        connection.socket.sendall(head + content)
        connection.socket.setblocking(False)

    def _begin(self, connection: _Connection, body: bytes, received_s: float) -> None:
        asked = _MAX_TOKENS.search(body)
        connection.num_tokens = int(asked[1]) if asked else 16
        connection.has_ids = _WANTS_IDS.search(body) is not None
        usage = _usage(_num_prompt(body), connection.num_tokens) if _WANTS_USAGE.search(body) else b""
        connection.end = usage + _DONE
        connection.received_s, connection.written_s = received_s, []
        self._plan(connection, received_s + self._ttft_s)

    def _plan(self, connection: _Connection, due_s: float) -> None:
        connection.due_s = due_s
        self._order += 1
        heapq.heappush(self._due, (due_s, self._order, connection))

    def _write(self, connection: _Connection) -> None:
        """The time is taken before: what it takes to carry the chunk over is not the server's."""
        index = len(connection.written_s)
        is_last = index + 1 == connection.num_tokens
        data = (_LAST if is_last else _MIDDLE)[connection.has_ids]
        if index == 0:
            data = _HEAD + data
        if is_last:
            data += connection.end
        now_s = time.monotonic()
        connection.written_s.append(now_s)
        self._late_s.append(now_s - connection.due_s)
        try:
            is_whole = connection.socket.send(data) == len(data)
        except OSError:
            is_whole = False
        if not is_whole:  # the client is gone, or takes nothing in
            self._close(connection)
        elif is_last:
            self._responses.append({"received_s": connection.received_s, "written_s": connection.written_s})
        else:
            self._plan(connection, connection.due_s + self._gap_s)


def main() -> None:
    """Its clock is the truth, so it goes before every client where the system allows that."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    server = NullHttp(float(sys.argv[1]), float(sys.argv[2]))
    print(server.port, flush=True)
    gc.disable()
    server.run()


if __name__ == "__main__":
    main()
