"""Post between actors: order, bursts, and that a flood leaves room for others."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tetribench.core.clock import run_real
from tetribench.core.messages import Broken, Message
from tetribench.instance.mail import MAX_AT_ONCE, Mail


def exchange(folder: Path, main: Callable[[Mail, Mail], Coroutine[Any, Any, None]]) -> None:
    """Run `main` with the mail of a sender and of a receiver."""

    async def both() -> None:
        sender, receiver = Mail(folder, "sender"), Mail(folder, "receiver")
        try:
            await main(sender, receiver)
        finally:
            sender.close()
            receiver.close()

    run_real(both())


async def received(mail: Mail, num_messages: int, meanwhile: Callable[[Message], None] = lambda one: None) -> list[str]:
    """The reasons of so many messages."""
    found: list[str] = []
    all_here = asyncio.Event()

    def take(message: Message) -> None:
        assert isinstance(message, Broken)
        found.append(message.reason)
        meanwhile(message)
        if len(found) == num_messages:
            all_here.set()

    receiving = asyncio.create_task(mail.receive(take))
    await asyncio.wait_for(all_here.wait(), 30.0)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    return found


@pytest.mark.parametrize("num_messages", [1, MAX_AT_ONCE, 3 * MAX_AT_ONCE + 1])
def test_a_burst_comes_whole_and_in_order(num_messages: int, tmp_path: Path) -> None:
    async def main(sender: Mail, receiver: Mail) -> None:
        for number in range(num_messages):
            sender.send("receiver", Broken("x", str(number)))
        assert await received(receiver, num_messages) == [str(number) for number in range(num_messages)]

    exchange(tmp_path, main)


def test_what_comes_while_nothing_is_waited_for_is_not_missed(tmp_path: Path) -> None:
    """One message after the other, each sent only when the last is here: a forgotten wake-up would stop it."""

    async def main(sender: Mail, receiver: Mail) -> None:
        sender.send("receiver", Broken("x", "0"))

        def answer(message: Message) -> None:
            assert isinstance(message, Broken)
            if message.reason != "499":
                sender.send("receiver", Broken("x", str(int(message.reason) + 1)))

        assert await received(receiver, 500, answer) == [str(number) for number in range(500)]

    exchange(tmp_path, main)


def test_others_have_their_turn_in_a_flood(tmp_path: Path) -> None:
    turns: list[int] = []
    num_messages = 8 * MAX_AT_ONCE

    async def main(sender: Mail, receiver: Mail) -> None:
        for number in range(num_messages):
            sender.send("receiver", Broken("x", str(number)))
        await asyncio.sleep(0.2)  # all of them are there
        num_taken = 0

        def count(message: Message) -> None:
            nonlocal num_taken
            num_taken += 1

        async def other() -> None:
            while True:
                turns.append(num_taken)
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        await received(receiver, num_messages, count)
        beside.cancel()

    exchange(tmp_path, main)
    assert any(0 < turn < num_messages for turn in turns)


def test_an_error_in_taking_a_message_in_ends_the_receiving(tmp_path: Path) -> None:
    async def main(sender: Mail, receiver: Mail) -> None:
        sender.send("receiver", Broken("x", "first"))
        with pytest.raises(ZeroDivisionError):
            await receiver.receive(lambda message: 1 // 0)  # type: ignore[arg-type]

    exchange(tmp_path, main)


def test_what_is_sent_to_somebody_who_was_forgotten_is_dropped(tmp_path: Path) -> None:
    async def main(sender: Mail, receiver: Mail) -> None:
        sender.send("receiver", Broken("x", "before"))
        assert await received(receiver, 1) == ["before"]
        sender.forget("receiver")
        sender.send("receiver", Broken("x", "after"))
        sender.send("sender", Broken("x", "to itself"))
        assert await received(sender, 1) == ["to itself"]

    exchange(tmp_path, main)
