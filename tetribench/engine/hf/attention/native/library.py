"""The kernels as functions: compiled for this machine's processor when a process first needs them."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tetribench.engine.native.compiler import compiled

_POINTER, _NUMBER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class Shape(ctypes.Structure):
    """`shape` of paged.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("heads", "kv_heads", "size", "num_blocks", "block_size", "block_stride"),
            *("query_row", "query_head", "table_width", "most_keys"),
        )
    ]


@dataclass(frozen=True, slots=True)
class Kernels:
    """The functions of store.c, decode.c and chunk.c, which say what they take."""

    store: Callable[..., int]
    decode: Callable[..., int]
    chunks: Callable[..., int]


@cache
def kernels() -> Kernels:
    """Raises RuntimeError with the compiler's complaint."""
    shape = ctypes.POINTER(Shape)
    return Kernels(
        store=_function("store.c", "paged_store", _POINTER, _NUMBER, _NUMBER, _POINTER, _POINTER, shape, _NUMBER),
        decode=_function("decode.c", "paged_decode", *[_POINTER] * 7, shape, _NUMBER, _FLOAT),
        chunks=_function("chunk.c", "paged_chunks", *[_POINTER] * 10, shape, _NUMBER, _FLOAT),
    )


def _function(source: str, name: str, *takes: Any) -> Callable[..., int]:
    function: Any = getattr(compiled(Path(__file__).with_name(source)), name)
    function.argtypes = takes
    function.restype = ctypes.c_int
    found: Callable[..., int] = function
    return found
