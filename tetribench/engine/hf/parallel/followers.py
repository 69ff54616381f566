"""The ranks after the first, as the first sees them: processes that it starts, tells of every iteration, and ends."""

import asyncio
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence as SequenceOf

import msgspec

from tetribench.engine.hf.parallel.pipe import read_message, write_message

_END_S = 3.0
"""In which a process ends by itself."""

_NOTICE_S = 1.0
"""In which a process that others have noticed to be gone has an exit code."""


class RankLost(RuntimeError):
    """A rank has ended, and with it the instance; the message says which and how."""


class Followers:
    """One process for each of `assignments`, in the order of their ranks. What they print goes where this one's does.

    Raises RankLost for one that does not get as far as to wait for the others.
    """

    def __init__(self, assignments: SequenceOf[object]) -> None:
        command = [sys.executable, "-m", "tetribench.engine.hf.parallel.follower"]
        self._size = len(assignments) + 1
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) for _ in assignments
        ]
        try:
            for process, assignment in zip(self._processes, assignments, strict=True):
                write_message(_in(process), pickle.dumps(assignment))
            self._answers()
        except BaseException:
            self.close()
            raise

    def handles(self) -> tuple[list[bytes], list[bytes]]:
        """Of each rank's KV memory: one for this process, one for peers. Waits until all are ready to compute."""
        found = [msgspec.msgpack.decode(answer, type=list[bytes]) for answer in self._answers()]
        return [own for own, _ in found], [peers for _, peers in found]

    def _answers(self) -> list[bytes]:
        answers = []
        for process in self._processes:
            answer = read_message(_out(process))
            if answer is None:
                process.wait()
                raise RankLost(self.lost())
            answers.append(answer)
        return answers

    def send(self, frame: bytes) -> None:
        """Raises BrokenPipeError where one is gone."""
        for process in self._processes:
            write_message(_in(process), frame)

    def lost(self) -> str | None:
        """Which rank has ended; None where all live."""
        for rank, process in enumerate(self._processes, 1):
            code = process.poll()
            if code is not None:
                return f"rank {rank} of engine.tensor_parallel={self._size} ended with code {code}"
        return None

    def lost_soon(self) -> str | None:
        """The same, after something has failed that may be the first sign of it."""
        until_s = time.monotonic() + _NOTICE_S
        while (lost := self.lost()) is None and time.monotonic() < until_s:
            time.sleep(0.01)
        return lost

    async def watch(self) -> None:
        """Until one ends, which raises RankLost."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        descriptors = [os.pidfd_open(process.pid) for process in self._processes if process.returncode is None]
        for descriptor in descriptors:
            loop.add_reader(descriptor, ended.set)
        try:
            while self.lost() is None:
                await ended.wait()
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        raise RankLost(self.lost())

    def close(self) -> None:
        """They end with their input; whoever does not is killed."""
        for process in self._processes:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _in(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdin is not None
    return process.stdin.fileno()


def _out(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout is not None
    return process.stdout.fileno()
