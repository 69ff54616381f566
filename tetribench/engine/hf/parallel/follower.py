"""A rank after the first: `python -m tetribench.engine.hf.parallel.follower`, told of everything over its stdin.

It does what the first rank does, on its share of the model, and ends with the first, however that went.
"""

import os
import pickle
import signal
import threading
from dataclasses import dataclass
from queue import SimpleQueue

import msgspec

from tetribench.engine.hf.build import build_runner, device_of
from tetribench.engine.hf.parallel.frames import decode
from tetribench.engine.hf.parallel.group import Group, store_at
from tetribench.engine.hf.parallel.pipe import read_message, write_message
from tetribench.engine.hf.schema import HFEngine


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message. `port` is where the ranks find each other."""

    engine: HFEngine
    device_index: int | None
    rank: int
    port: int


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to the log, not between the answers
    first = read_message(0)
    if first is None:
        return
    frames: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_take_in, args=(frames,), daemon=True).start()
    assignment: Assignment = pickle.loads(first)
    write_message(answers, b"here")
    _follow(assignment, frames, answers)


def _take_in(frames: "SimpleQueue[bytes]") -> None:
    """Beside the computation, which may wait forever for a rank that is gone."""
    while (frame := read_message(0)) is not None:
        frames.put(frame)
    os._exit(0)


def _follow(assignment: Assignment, frames: "SimpleQueue[bytes]", answers: int) -> None:
    engine, rank = assignment.engine, assignment.rank
    device = device_of(engine, assignment.device_index, rank)
    group = Group(store_at(assignment.port), rank, engine.tensor_parallel, device)
    runner = build_runner(engine, assignment.device_index, group)
    # one for the first rank, one for the peers of the instance: on CUDA everyone needs a handle of his own
    write_message(answers, msgspec.msgpack.encode([runner.pool.handle(), runner.pool.handle()]))
    while True:
        batch = decode(frames.get())
        runner.run_here(batch)
        if not batch.num_rows:
            group.meet()


if __name__ == "__main__":
    main()
