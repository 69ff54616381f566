"""The learned length predictor while a system serves: on a thread, or in a process of its own."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import msgspec

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.engine.base import LengthPredictor
from tetribench.engine.checkpoint import PredictorCheckpoint
from tetribench.engine.hf.predictor import Classifier, load_classifier


class _Answers(Protocol):
    async def buckets(self, prompts: list[str]) -> list[int]:
        """The bucket of each prompt."""

    def close(self) -> None: ...


class LearnedPredictor:
    """A classifier's buckets as ranges."""

    def __init__(self, checkpoint: PredictorCheckpoint, answers: _Answers, description: str, is_parallel: bool) -> None:
        self.description = f"learned, granularity {checkpoint.granularity}, {description}"
        self.is_parallel = is_parallel
        self._checkpoint = checkpoint
        self._answers = answers

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        buckets = await self._answers.buckets([request.text for request in requests])
        return {request.id: self._checkpoint.range_of(one) for request, one in zip(requests, buckets, strict=True)}

    def close(self) -> None:
        self._answers.close()


class _Direct:
    """In the caller's own time: for virtual time, in which no thread can be waited for."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    async def buckets(self, prompts: list[str]) -> list[int]:
        return self._classifier.buckets(prompts)

    def close(self) -> None:
        """Nothing is held."""


class _Threaded:
    """On a thread, so that the instance goes on talking meanwhile."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predictor")

    async def buckets(self, prompts: list[str]) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._classifier.buckets, prompts)

    def close(self) -> None:
        self._thread.shutdown()


class _Spawned:
    """In a process of its own on `core`, which ends with this one: lines of JSON go out and come back."""

    def __init__(self, checkpoint: PredictorCheckpoint, core: int) -> None:
        command = [sys.executable, "-m", "tetribench.engine.hf.predictor_process", str(checkpoint.path), str(core)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predictor")
        self._ask([])  # until it has loaded

    def _ask(self, prompts: list[str]) -> list[int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(prompts) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise RuntimeError(f"the length predictor's process ended with code {self._process.wait()}")
        return msgspec.json.decode(line, type=list[int])

    async def buckets(self, prompts: list[str]) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, prompts)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.shutdown()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # of what it died without reading, which is sent again here
                pipe.close()


def learned_predictor(
    checkpoint: PredictorCheckpoint, device: str | None, is_parallel: bool, spare_core: int | None
) -> LengthPredictor:
    """The predictor beside an engine on `device` (None: a cost model, which has none)."""
    if device is None:
        return LearnedPredictor(checkpoint, _Direct(load_classifier(checkpoint.path)), "takes no time", is_parallel)
    if device != "cpu":
        answers = _Threaded(load_classifier(checkpoint.path, device))
        return LearnedPredictor(checkpoint, answers, f"on {device}", is_parallel)
    if is_parallel and spare_core is not None:
        spawned = _Spawned(checkpoint, spare_core)
        return LearnedPredictor(checkpoint, spawned, f"in its own process on core {spare_core}", True)
    why = "takes turns with the model: there is no core to spare" if is_parallel else "takes turns with the model"
    return LearnedPredictor(checkpoint, _Threaded(load_classifier(checkpoint.path)), why, False)
