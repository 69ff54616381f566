"""What is looked for when, and that all is as before afterwards."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tetribench.core.clock import run_real
from tetribench.core.garbage import rarely_collected, young_only


@pytest.fixture
def generations() -> Iterator[list[int]]:
    """Of each search since. What there was before is left out of them: Python waits for a quarter more than it found in
    its last search of all before the next."""
    searched: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            searched.append(info["generation"])

    gc.freeze()
    gc.collect()
    gc.callbacks.append(note)
    yield searched
    gc.callbacks.remove(note)
    gc.unfreeze()


def make_lasting(num_objects: int) -> list[list[int]]:
    return [[number] for number in range(num_objects)]


async def serve_lasting(num_objects: int) -> None:
    kept = make_lasting(num_objects)
    assert len(kept) == num_objects


def test_real_time_does_not_stop_for_all_objects(generations: list[int]) -> None:
    asyncio.run(serve_lasting(100_000))
    assert max(generations) == 2, "as Python does by itself"
    generations.clear()

    async def main() -> list[int]:
        await serve_lasting(100_000)
        return list(generations)

    assert set(run_real(main())) == {0, 1}


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_grew_old_in_real_time_is_gone_at_its_end() -> None:
    async def main() -> "weakref.ref[Cycle]":
        cycle = Cycle()
        gc.collect()  # it is among the oldest now
        return weakref.ref(cycle)

    assert run_real(main())() is None


@pytest.mark.parametrize("context", [rarely_collected, young_only])
def test_all_is_as_before(context: Callable[[], AbstractContextManager[None]]) -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), context():
        assert gc.get_threshold() != before
        raise RuntimeError
    assert gc.get_threshold() == before
