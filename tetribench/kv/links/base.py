"""The one API of all links, and of the media that the user chooses from (paper section 3.3.4)."""

from collections.abc import Sequence as SequenceOf
from enum import Enum
from typing import Protocol

from tetribench.core.clock import Clock
from tetribench.engine.base import KVPool, Part
from tetribench.kv.links.speed import LinkSpeed

DEFAULT_TIMEOUT_S = 30.0


class LinkFailed(Exception):
    """A move did not happen, or only in part; the message names the peer and the reason.

    Whoever catches it may move the same blocks again, there or elsewhere. Where the peer is alive, bytes that were
    already on their way may still be placed in its target blocks after this was raised; so the peer must not hand those
    blocks out again before its own side of the link has seen the connection end.
    """


class Operation(Enum):
    """The verb that carries a push. The sender starts all three; they differ in who moves the bytes."""

    write = "write"
    """One-sided: the sender puts them into the receiver's memory."""
    read = "read"
    """One-sided: the receiver, told that they are ready, gets them out of the sender's memory."""
    send = "send"
    """Two-sided: the sender sends, the receiver puts what it receives into its own memory."""


class Link(Protocol):
    """An instance's end of its links to all peers."""

    async def open(self) -> None:
        """Be reachable; before that there is no handle."""

    def handle(self) -> bytes:
        """How peers reach this end."""

    def connect(self, handles: dict[str, bytes]) -> None:
        """Learn how to reach the named peers, beside those already known; a new handle replaces a peer's old one."""

    def disconnect(self, name: str) -> None:
        """Forget a peer."""

    async def move(
        self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int], part: Part | None = None
    ) -> int:
        """Bring blocks `source_ids` here, or a part of each, to `target_ids` of the peer; number of bytes, all in
        place on return.

        Raises LinkFailed when the peer is unknown, gone, refuses, or takes longer than the link's time-out.
        """

    def close(self) -> None:
        """Give back threads, sockets and mappings."""


class Medium(Protocol):
    """What the user chooses as `kv/link`: light and picklable, builds the link in the instance's process."""

    speed: LinkSpeed

    @property
    def name(self) -> str:
        """Medium, verb and speed in words, for the manifest."""

    def check(self, *, in_parts: bool = False) -> None:
        """Raise a one-line ValueError where this machine lacks what the medium needs, or it cannot serve pools that lie
        in parts."""

    def build(self, pool: KVPool, clock: Clock) -> Link: ...


def check_timeout(timeout_s: float) -> None:
    if timeout_s <= 0:
        raise ValueError(f"kv.link.timeout_s={timeout_s}: must be positive")


def check_operation(medium: str, operation: Operation, legal: tuple[Operation, ...]) -> None:
    """Refuse a verb that the medium has not got."""
    if operation not in legal:
        names = " and ".join(one.value for one in legal)
        raise ValueError(f"kv.link.operation={operation.value}: {medium} has {names} only")


def describe(medium: str, operation: Operation, speed: LinkSpeed) -> str:
    """As in `tcp send` or `memory write, at most 25 GB/s`."""
    return ", ".join(filter(None, [f"{medium} {operation.value}", str(speed)]))
