"""Messages between processes of one machine: one ZeroMQ socket to receive on, one to each actor that is written to."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import zmq

from tetribench.core.messages import Message
from tetribench.instance.codec import decode, encode

MAX_AT_ONCE = 256
"""Messages taken in before others on the event loop have their turn."""


class Mail:
    """The post of the actor `name`; all actors of a run share `folder`, which holds their sockets."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._context = zmq.Context()
        self._in = self._context.socket(zmq.PULL)
        self._in.set_hwm(0)
        self._in.bind(self._address(name))
        self._out: dict[str, zmq.Socket[bytes]] = {}
        self._forgotten: set[str] = set()

    def _address(self, name: str) -> str:
        return f"ipc://{self._folder / name}"

    def send(self, to: str, message: Message) -> None:
        """Queue `message` without limit; never waits. For an actor that was forgotten it is dropped."""
        if to in self._forgotten:
            return
        if to not in self._out:
            socket = self._context.socket(zmq.PUSH)
            socket.set_hwm(0)
            socket.linger = 1000
            socket.connect(self._address(to))
            self._out[to] = socket
        self._out[to].send(encode(message))

    def forget(self, name: str) -> None:
        """The actor `name` is gone: drop what it has not taken."""
        self._forgotten.add(name)
        socket = self._out.pop(name, None)
        if socket is not None:
            socket.close(linger=0)

    async def receive(self, on_message: Callable[[Message], None]) -> None:
        """Hand over every message that comes, until cancelled.

        All that are there are taken at once: waiting for each by itself takes ten times as long as taking it, and a
        burst of requests would wait for that at the instance.
        """
        loop, has_come = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._in.fileno(), has_come.set)
        try:
            while True:
                has_come.clear()
                while self._take(on_message):
                    await asyncio.sleep(0)
                await has_come.wait()
        finally:
            loop.remove_reader(self._in.fileno())

    def _take(self, on_message: Callable[[Message], None]) -> bool:
        """Whether there may be more. ZeroMQ tells of new messages only after it has said that there are none."""
        for _ in range(MAX_AT_ONCE):
            try:
                frame = self._in.recv(zmq.NOBLOCK)
            except zmq.Again:
                return False
            on_message(decode(frame))
        return True

    def close(self) -> None:
        """Sends what is queued, for at most a second."""
        self._in.close(linger=0)
        for socket in self._out.values():
            socket.close()
        self._context.term()
