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
from torch.utils._pytree import tree_leaves

from tetribench.engine.hf.graphs import Run
from tetribench.engine.hf.operators import OWN

_DECIDES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_ONLY_MEMORY = {torch.ops.aten.empty.memory_format, torch.ops.aten.new_empty.default, torch.ops.aten.empty_like.default}

Arguments = tuple[SequenceOf[Any], Mapping[str, Any]]


def record_operators(run: Run) -> Run:
    """What `run` does to the tensors that it finds, of which none may decide on what it does.

    Raises RuntimeError where one does.
    """
    run()  # what is done once only is not part of it
    recorder = _Recorder()
    with recorder:
        run()
    return recorder.replay


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps of each operator how to do it again into the same results, and all tensors: no two share memory that the
    pass gave back between them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        call = _again(operator, arguments, result)
        if call is not None:
            self._calls.append(call)
        self._kept.append((arguments, result))
        return result


def _again(operator: Any, arguments: Arguments, result: Any) -> Run | None:
    """None where there is nothing to do: a view of memory shows what is there."""
    args, kwargs = arguments
    if operator in OWN:
        return OWN[operator](*args, **kwargs)
    if operator._schema.is_mutable:
        return partial(operator.op, *args, **kwargs)
    results = _tensors(result)
    if operator in _ONLY_MEMORY or _memory(results) <= _memory(_tensors(arguments)):
        return None
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
