"""What carries bytes by itself, without a link around it: the figures that links are held to.

Each is a function that moves `num_bytes` once, from one buffer that has been touched to another.
"""

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe

import torch

from tests.kv.links.peers import BytesPool
from tetribench.engine.spans import Span, Spans
from tetribench.kv.links.nixl_agent import Agent, Reachable

Move = Callable[[], None]


@contextmanager
def memcpy(num_bytes: int) -> Iterator[Move]:
    """Within this process, on one thread."""
    torch.set_num_threads(1)
    source, target = (torch.ones(num_bytes, dtype=torch.uint8) for _ in range(2))

    def move() -> None:
        target.copy_(source)

    yield move


@contextmanager
def tcp(num_bytes: int) -> Iterator[Move]:
    """Through one blocking socket to another process, which says a byte when it has all of it."""
    with _other_process(_take_in, num_bytes) as pipe, socket.create_connection(pipe.recv()) as sender:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        source = memoryview(bytearray(b"\1" * num_bytes))

        def move() -> None:
            sender.sendall(source)
            assert sender.recv(1) == b"."

        yield move


def _take_in(pipe: Pipe, num_bytes: int) -> None:
    target = memoryview(bytearray(b"\1" * num_bytes))
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname())
        receiver, _ = server.accept()
    with receiver:
        while True:
            num_there = 0
            while num_there < num_bytes:
                num_new = receiver.recv_into(target[num_there:])
                if not num_new:
                    return
                num_there += num_new
            receiver.sendall(b".")


@contextmanager
def nixl(verb: str, num_bytes: int, pieces: Spans | None = None) -> Iterator[Move]:
    """One transfer, `WRITE` to another process or `READ` from it, asked without pause whether it ended; of one piece,
    or of these."""
    whole = Spans.of([Span(0, 0, num_bytes)]) if pieces is None else pieces
    with _other_process(_hold, num_bytes) as pipe:
        pool = BytesPool(1, num_bytes, fill=1)
        agent, there = Agent(pool), pipe.recv()
        assert isinstance(there, Reachable)
        name = agent.meet(there)

        def move() -> None:
            transfer = agent.post(verb, name, there.region, whole)
            while agent.is_under_way(transfer):
                pass
            agent.release(transfer)

        yield move
        agent.close()


def _hold(pipe: Pipe, num_bytes: int) -> None:
    pool = BytesPool(1, num_bytes, fill=1)
    agent = Agent(pool)
    pipe.send(agent.reachable)
    pipe.recv()
    agent.close()


@contextmanager
def _other_process(main: Callable[[Pipe, int], None], num_bytes: int) -> Iterator[Pipe]:
    """It may end once it is told anything, or its socket is closed."""
    context = multiprocessing.get_context("spawn")
    own, theirs = context.Pipe()
    process = context.Process(target=main, args=(theirs, num_bytes), daemon=True)
    process.start()
    theirs.close()
    try:
        yield own
        own.send("stop")
        process.join(5)
    finally:
        process.kill()
