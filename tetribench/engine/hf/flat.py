"""A pass on the CPU as a list of calls on memory that stays, without the Python of the model's modules.

That is to the modules what CUDA graphs are to a GPU's launches: a decode of few sequences takes half the time
(`tests/benchmarks/engine.md`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tetribench.engine.hf.graphs import Run
from tetribench.engine.hf.operators import OWN
from tetribench.engine.hf.places import Lifetime, place

_DECIDES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_ONLY_MEMORY = {torch.ops.aten.empty.memory_format, torch.ops.aten.new_empty.default, torch.ops.aten.empty_like.default}

Arguments = tuple[SequenceOf[Any], Mapping[str, Any]]


class OperatorRecorder:
    """Records passes, the largest first; only one of them runs at a time, and all compute in the same memory."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def __call__(self, run: Run) -> Run:
        """What `run` does to the tensors that it finds, of which none may decide on what it does.

        Raises RuntimeError where one does.
        """
        run()  # what is done once only is not part of it
        rehearsal = _Rehearsal()
        with rehearsal:
            run()
        offsets, num_bytes = place(rehearsal.results)
        if self._memory.nbytes < num_bytes:
            self._memory = torch.empty(num_bytes, dtype=torch.uint8)
        recording = _Recording(self._memory, zip(offsets, rehearsal.results, strict=True))
        with recording:
            run()
        return recording.replay


class _Watched(TorchDispatchMode, ABC):  # type: ignore[no-untyped-call]
    """A pass, operator by operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = (args, kwargs or {})
        with self:
            result = operator.decompose(*arguments[0], **arguments[1])
        if result is not NotImplemented:
            return result
        if _DECIDES.intersection(operator.tags) and not _picks_by_number(operator, args):
            raise RuntimeError(f"it depends on what {operator} finds")
        result = operator(*arguments[0], **arguments[1])
        is_new = not operator._schema.is_mutable and not _memory(_tensors(result)) <= _memory(_tensors(arguments))
        return self._watch(operator, arguments, result, is_new)

    @abstractmethod
    def _watch(self, operator: Any, arguments: Arguments, result: Any, is_new: bool) -> Any:
        """Hands on `result`, or what stands for it. One that is not new is a view, or what was written to."""


class _Rehearsal(_Watched):  # type: ignore[no-untyped-call]
    """Finds out from which operator to which each result is needed. Keeps all, so that no two have one address."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Lifetime] = []
        self._by_address: dict[int, Lifetime] = {}
        self._kept: list[Any] = []
        self._num_operators = 0

    def _watch(self, operator: Any, arguments: Arguments, result: Any, is_new: bool) -> Any:
        self._num_operators += 1
        if is_new:
            for tensor in _tensors(result):
                storage = tensor.untyped_storage()
                self.results.append(Lifetime(storage.nbytes(), self._num_operators, self._num_operators))
                self._by_address[storage.data_ptr()] = self.results[-1]
        for address in _memory(_tensors(arguments)) & self._by_address.keys():
            self._by_address[address].last = self._num_operators
        self._kept.append(result)
        return result


class _Recording(_Watched):  # type: ignore[no-untyped-call]
    """Keeps of each operator how to do it again into the same results, which lie where `places` says in `memory`."""

    def __init__(self, memory: Tensor, places: Iterator[tuple[int, Lifetime]]) -> None:
        super().__init__()
        self._memory = memory
        self._places = places
        self._calls: list[Run] = []
        self._kept: list[Any] = []

    def replay(self) -> None:
        for call in self._calls:
            call()

    def _watch(self, operator: Any, arguments: Arguments, result: Any, is_new: bool) -> Any:
        if is_new:
            result = tree_map_only(Tensor, self._moved, result)
        if operator._schema.is_mutable:
            self._calls.append(_bound(operator, arguments))
        elif is_new and operator not in _ONLY_MEMORY:
            self._calls.append(_into(operator, arguments, _tensors(result)))
        self._kept.append((arguments, result))
        return result

    def _moved(self, result: Tensor) -> Tensor:
        """To its place in the memory that stays."""
        num_bytes = result.untyped_storage().nbytes()
        offset, rehearsed = next(self._places, (0, None))
        if rehearsed is None or rehearsed.num_bytes != num_bytes:
            raise RuntimeError("it does something else each time")
        there = self._memory[offset : offset + num_bytes].view(result.dtype)
        first = there.storage_offset() + result.storage_offset()
        return there.as_strided(result.shape, result.stride(), first).copy_(result)


def _picks_by_number(operator: Any, args: SequenceOf[Any]) -> bool:
    """As many rows as there are numbers; by a mask it would be as many as that holds."""
    return operator is torch.ops.aten.index.Tensor and all(index.dtype == torch.int64 for index in _tensors(args[1]))


def _bound(operator: Any, arguments: Arguments) -> Run:
    """One that writes to its arguments."""
    args, kwargs = arguments
    return OWN[operator](*args, **kwargs) if operator in OWN else partial(operator.op, *args, **kwargs)


def _into(operator: Any, arguments: Arguments, results: list[Tensor]) -> Run:
    args, kwargs = arguments
    into = _with_results(operator)
    if into is not None:
        return partial(into.op, *args, **kwargs, **dict(zip(_names_of_results(into), results, strict=True)))
    return partial(_do_and_copy, operator, arguments, results)


def _do_and_copy(operator: Any, arguments: Arguments, results: list[Tensor]) -> None:
    args, kwargs = arguments
    for result, new in zip(results, _tensors(operator(*args, **kwargs)), strict=True):
        result.copy_(new)


@cache
def _with_results(operator: Any) -> Any | None:
    """The same operator where it is told what to write its results to, if torch has it."""
    packet = operator.overloadpacket
    for name in packet.overloads():
        other = getattr(packet, name)
        if _names_of_results(other) and _takes(other) == _takes(operator):
            return other
    return None


def _takes(operator: Any) -> list[tuple[str, str]]:
    return [(one.name, str(one.type)) for one in operator._schema.arguments if not one.is_out]


def _names_of_results(operator: Any) -> list[str]:
    return [one.name for one in operator._schema.arguments if one.is_out]


def _tensors(among: Any) -> list[Tensor]:
    return [one for one in tree_leaves(among) if isinstance(one, Tensor)]


def _memory(tensors: SequenceOf[Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}
