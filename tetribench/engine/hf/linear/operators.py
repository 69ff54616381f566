"""The kernel as an operator: compiled for this machine's processor when a process first needs it."""

import ctypes
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tetribench.engine.hf.operators import Call, define
from tetribench.engine.native.compiler import compiled


@cache
def library() -> Any:
    """linear.c. Raises RuntimeError with the compiler's complaint."""
    found: Any = compiled(Path(__file__).with_name("linear.c"))
    found.linear.argtypes = [*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 3]
    found.linear.restype = None
    found.panel_size.restype = ctypes.c_int64
    return found


def in_panels(rows: Tensor) -> Tensor:
    """`rows` `[outputs, ...]`, filled up with zeros, as `[panels, ..., outputs of a panel]`."""
    size: int = library().panel_size()
    num_panels = -(-rows.shape[0] // size)
    filled = rows.new_zeros((num_panels * size, *rows.shape[1:]))
    filled[: rows.shape[0]] = rows
    panels: Tensor = filled.view(num_panels, size, *rows.shape[1:]).movedim(1, -1).contiguous()
    return panels


def _linear(inputs: Tensor, panels: Tensor, bias: Tensor, out: Tensor) -> Call:
    """`inputs` `[..., inputs]` to `out` `[..., outputs]`; `panels` and `bias` are `in_panels`."""
    num_inputs, num_outputs = inputs.shape[-1], out.shape[-1]
    assert inputs.is_contiguous() and out.is_contiguous(), "rows are neighbours"
    assert panels.shape[1] == num_inputs and bias.numel() >= num_outputs, "made for each other"
    addresses = [tensor.data_ptr() for tensor in (inputs, panels, bias, out)]
    return partial(library().linear, *addresses, inputs.numel() // num_inputs, num_inputs, num_outputs)


linear = define("linear(Tensor inputs, Tensor panels, Tensor bias, Tensor(a!) out) -> ()", _linear)
