"""Turns at the parts of a shared memory, between two threads that could be in two processes."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tetribench.kv.links.turns import Emptying, Filling

OPEN = Path("/proc/self/fd")
GONE = "^the other end of the shared memory is gone$"


@pytest.fixture
def filling() -> Iterator[Filling]:
    made = Filling(num_parts=3)
    yield made
    made.close()


@pytest.fixture
def emptying(filling: Filling) -> Iterator[Emptying]:
    attached = Emptying(filling.handle())
    yield attached
    attached.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as one:
        yield one


def test_nobody_is_more_than_all_parts_ahead(filling: Filling, emptying: Emptying, thread: ThreadPoolExecutor) -> None:
    ahead, seen, lock = 0, [], threading.Lock()

    def fill() -> None:
        nonlocal ahead
        for _ in range(200):
            filling.take()
            with lock:
                ahead += 1
                seen.append(ahead)
            filling.hand_on()

    filled = thread.submit(fill)
    while ahead < 3:
        time.sleep(0.001)
    for _ in range(200):
        emptying.take()
        with lock:
            ahead -= 1
            seen.append(ahead)
        emptying.hand_on()
    filled.result()
    assert min(seen) == 0 and max(seen) == 3


def test_who_gives_up_waits_no_longer(filling: Filling, emptying: Emptying, thread: ThreadPoolExecutor) -> None:
    for _ in range(3):
        filling.take()
    for side in (filling, emptying):
        waiting = thread.submit(side.take)
        side.give_up()
        with pytest.raises(ConnectionError, match=GONE):
            waiting.result(timeout=10)


def test_a_peer_that_is_gone_is_waited_for_no_longer(thread: ThreadPoolExecutor) -> None:
    filling = Filling(num_parts=3)
    emptying = Emptying(filling.handle())
    waiting = thread.submit(emptying.take)
    filling.close()
    with pytest.raises(ConnectionError, match=GONE):
        waiting.result(timeout=10)
    emptying.close()


def test_nothing_stays_open_where_there_is_no_peer() -> None:
    filling = Filling(num_parts=3)
    handle = filling.handle()
    filling.close()
    num_open = len(list(OPEN.iterdir()))
    with pytest.raises(OSError):
        Emptying(handle)
    assert len(list(OPEN.iterdir())) == num_open
