"""A stand-in for `cuda.bindings.driver`, which answers as that does: a code, then what was asked for."""

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple


class Result(Enum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NOT_SUPPORTED = 801


class Multiprocessors(NamedTuple):
    """A resource of the driver: these, of one GPU."""

    numbers: tuple[int, ...]

    @property
    def sm(self) -> Any:
        return SimpleNamespace(smCount=len(self.numbers))


class FakeDriver:
    """Of a GPU with `num_multiprocessors`, given out by `granularity`. `refuses` names a function that fails."""

    CUresult = Result
    CUdevResourceType = SimpleNamespace(CU_DEV_RESOURCE_TYPE_SM="multiprocessors")
    CUgreenCtxCreate_flags = SimpleNamespace(CU_GREEN_CTX_DEFAULT_STREAM="with a stream")
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING="by itself")

    def __init__(self, num_multiprocessors: int, granularity: int = 8, refuses: str | None = None) -> None:
        self._every = Multiprocessors(tuple(range(num_multiprocessors)))
        self._granularity = granularity
        self._refuses = refuses
        self.contexts: list[tuple[int, ...]] = []
        """The multiprocessors of each, in the order in which they were made."""
        self.streams: dict[int, int] = {}
        """By handle the context that each is of."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name == object.__getattribute__(self, "_refuses"):
            return _refusing
        return found

    def cuDeviceGet(self, ordinal: int) -> tuple[Result, int]:
        return Result.CUDA_SUCCESS, 100 + ordinal

    def cuDeviceGetDevResource(self, device: int, kind: str) -> tuple[Result, Multiprocessors]:
        assert device >= 100 and kind == "multiprocessors"
        return Result.CUDA_SUCCESS, self._every

    def cuDevSmResourceSplitByCount(
        self, num_groups: int, resource: Multiprocessors, flags: int, least: int
    ) -> tuple[Result, list[Multiprocessors], int, Multiprocessors]:
        """Always the first ones, as the real one does."""
        assert num_groups == 1 and flags == 0 and resource is self._every, "no part of a split is split again"
        size = -(-least // self._granularity) * self._granularity
        first, rest = resource.numbers[:size], resource.numbers[size:]
        return Result.CUDA_SUCCESS, [Multiprocessors(first)], 1, Multiprocessors(rest)

    def cuDevResourceGenerateDesc(
        self, resources: list[Multiprocessors], number: int
    ) -> tuple[Result, tuple[int, ...]]:
        assert number == len(resources) == 1
        return Result.CUDA_SUCCESS, resources[0].numbers

    def cuGreenCtxCreate(self, descriptor: tuple[int, ...], device: int, flags: str) -> tuple[Result, int]:
        assert device >= 100 and flags == "with a stream"
        self.contexts.append(descriptor)
        return Result.CUDA_SUCCESS, len(self.contexts) - 1

    def cuGreenCtxStreamCreate(self, context: int, flags: str, priority: int) -> tuple[Result, int]:
        assert flags == "by itself" and priority == 0
        handle = 7000 + len(self.streams)
        self.streams[handle] = context
        return Result.CUDA_SUCCESS, handle


_refusing: Callable[..., tuple[Result, None]] = lambda *arguments: (Result.CUDA_ERROR_NOT_SUPPORTED, None)  # noqa: E731
