"""A pass on the CPU as a list of calls on memory that stays, without the Python of the model's modules.

That is to the modules what CUDA graphs are to a GPU's launches: a decode of few sequences takes half the time
(`tests/benchmarks/engine.md`).
"""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tetribench.engine.hf.graphs import Run
from tetribench.engine.hf.operators import OWN

_DECIDES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_ONLY_MEMORY = {torch.ops.aten.empty.memory_format, torch.ops.aten.new_empty.default, torch.ops.aten.empty_like.default}

Arguments = tuple[SequenceOf[Any], Mapping[str, Any]]


class OperatorRecorder:
    """Records passes, the largest first; only one of them runs at a time, and all compute in the same memory."""

    def __init__(self) -> None:
        self._memory = _Memory()

    def __call__(self, run: Run) -> Run:
        """What `run` does to the tensors that it finds, of which none may decide on what it does.

        Raises RuntimeError where one does.
        """
        run()  # what is done once only is not part of it
        self._memory.begin()
        recording = _Recording(self._memory)
        with recording:
            run()
        return recording.replay


class _Memory:
    """The results of a pass, in the order in which they come: the next pass has the same ones, and smaller."""

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []
        self._num_taken = 0

    def begin(self) -> None:
        """Of a pass."""
        self._num_taken = 0

    def moved(self, result: Tensor) -> Tensor:
        """A result, in memory that stays."""
        num_bytes = result.untyped_storage().nbytes()
        if self._num_taken == len(self._pieces):
            self._pieces.append(torch.empty(0, dtype=torch.uint8))
        if self._pieces[self._num_taken].nbytes < num_bytes:
            self._pieces[self._num_taken] = torch.empty(num_bytes, dtype=torch.uint8)
        piece = self._pieces[self._num_taken][:num_bytes].view(result.dtype)
        self._num_taken += 1
        return piece.as_strided(result.shape, result.stride(), result.storage_offset()).copy_(result)


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps of each operator how to do it again into the same results, and all tensors: no two results share memory
    that the pass gave back between them."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = memory
        self._calls: list[Run] = []
        self._kept: list[Any] = []

    def replay(self) -> None:
        for call in self._calls:
            call()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = (args, kwargs or {})
        with self:
            result = operator.decompose(*arguments[0], **arguments[1])
        if result is not NotImplemented:
            return result
        if _DECIDES.intersection(operator.tags):
            raise RuntimeError(f"it depends on what {operator} finds")
        result = operator(*arguments[0], **arguments[1])
        if operator._schema.is_mutable:
            self._calls.append(_bound(operator, arguments))
        elif not _memory(_tensors(result)) <= _memory(
            _tensors(arguments)
        ):  # else it is a view, and shows what is there
            result = tree_map_only(Tensor, self._memory.moved, result)
            if operator not in _ONLY_MEMORY:
                self._calls.append(_into(operator, arguments, _tensors(result)))
        self._kept.append((arguments, result))
        return result


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
