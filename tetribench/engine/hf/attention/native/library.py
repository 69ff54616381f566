"""The kernel as a function: compiled for this machine's processor when a process first needs it."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tetribench.engine.native.compiler import compiled

_SOURCE = Path(__file__).with_name("decode.c")


class Shape(ctypes.Structure):
    """What all calls of one pass have in common; strides and widths are counted in floats."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("heads", "kv_heads", "size", "block_size", "block_stride", "table_width", "scores_width")
    ]


@cache
def paged_decode() -> Callable[..., None]:
    """`paged_decode` of decode.c, which says what it takes. Raises RuntimeError with the compiler's complaint."""
    library: Any = compiled(_SOURCE)
    function: Callable[..., None] = library.paged_decode
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.paged_decode.argtypes = [*[pointer] * 7, ctypes.POINTER(Shape), number, ctypes.c_float]
    library.paged_decode.restype = None
    return function
