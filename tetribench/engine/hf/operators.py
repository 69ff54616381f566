"""Kernels of our own as operators of torch's, so that whatever records a pass sees them."""

from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], None]
Prepare = Callable[..., Call]
"""Checks an operator's arguments; what it returns computes with the memory that they have, each time it is called."""

_LIBRARY: Any = torch.library.Library("tetribench", "DEF")  # type: ignore[no-untyped-call]

OWN: dict[Any, Prepare] = {}
"""By operator."""


def define(schema: str, prepare: Prepare) -> Any:
    """The operator with that name and those arguments, all written to by itself, for tensors on the CPU."""

    def compute(*arguments: Any) -> None:
        prepare(*arguments)()

    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, compute, "CPU")
    operator = getattr(torch.ops.tetribench, name).default
    OWN[operator] = prepare
    return operator
