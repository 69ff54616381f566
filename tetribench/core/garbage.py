"""Python's search for garbage in cycles, which costs the more the more objects there are."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Search less often: for work that makes millions of objects, next to none of them in cycles."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def young_only() -> Iterator[None]:
    """Search among young objects only: for work that must not stop for the tens of milliseconds that all objects of a
    process take. Cycles that grew old before they became garbage stay until the end, and no longer: an engine's memory
    may hang on a few small objects, whose number would let Python wait for many more."""
    before = gc.get_threshold()
    gc.set_threshold(before[0], before[1], 1_000_000_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.collect()
