"""How messages leave an instance; each launcher has its own way."""

from typing import Protocol

from tetribench.core.messages import Message

CONTROL = "control"
"""Address of the global scheduler and the cluster monitor."""


class Post(Protocol):
    def send(self, to: str, message: Message) -> None:
        """Hand over `message` for the actor named `to`; never waits, keeps the order between two actors."""

    def forget(self, name: str) -> None:
        """The actor `name` is gone: drop what it has not taken."""
