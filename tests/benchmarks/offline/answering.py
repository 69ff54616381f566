"""Between the benchmark and an engine: a line of JSON with a `Work`, a line with its `Course` in return."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from tests.benchmarks.offline.cases import Course, Work

CORE = min(os.sched_getaffinity(0))
"""All engines get the same one, in turns."""


Do = Callable[[Work], Course]


def answer(started: AbstractContextManager[Do]) -> None:
    """Start an engine and let it work until there are no more lines. What it prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.sched_setaffinity(0, {CORE})
    with started as do:
        replies.write(b"ready\n")
        for line in sys.stdin.buffer:
            replies.write(msgspec.json.encode(do(msgspec.json.decode(line, type=Work))) + b"\n")
