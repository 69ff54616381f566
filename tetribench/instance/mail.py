"""Messages between processes of one machine: one ZeroMQ socket to receive on, one to each actor that is written to."""

from collections.abc import Callable
from pathlib import Path

import zmq
import zmq.asyncio

from tetribench.core.messages import Message
from tetribench.instance.codec import decode, encode


class Mail:
    """The post of the actor `name`; all actors of a run share `folder`, which holds their sockets."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._context = zmq.Context()
        self._in = zmq.asyncio.Socket(self._context, zmq.PULL)
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
        self._out[to].send_multipart(encode(message))

    def forget(self, name: str) -> None:
        """The actor `name` is gone: drop what it has not taken."""
        self._forgotten.add(name)
        socket = self._out.pop(name, None)
        if socket is not None:
            socket.close(linger=0)

    async def receive(self, on_message: Callable[[Message], None]) -> None:
        """Hand over every message that comes, until cancelled."""
        while True:
            kind, content = await self._in.recv_multipart()
            on_message(decode(kind, content))

    def close(self) -> None:
        """Sends what is queued, for at most a second."""
        self._in.close(linger=0)
        for socket in self._out.values():
            socket.close()
        self._context.term()
