"""The kernel as a function: compiled for this machine's processor when a process first needs it."""

import ctypes
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tetribench.engine.hf.attention.options import find_compiler

_SOURCE = Path(__file__).with_name("decode.c")
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp-simd", "-fPIC", "-shared")
"""Not -ffast-math: a library that is linked with it turns off denormal numbers in the process that loads it."""


class Shape(ctypes.Structure):
    """What all calls of one pass have in common; strides and widths are counted in floats."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("heads", "kv_heads", "size", "block_size", "block_stride", "table_width", "scores_width")
    ]


@cache
def paged_decode() -> Callable[..., None]:
    """`paged_decode` of decode.c, which says what it takes. Raises RuntimeError with the compiler's complaint."""
    compiler = find_compiler()
    assert compiler is not None, "refused before"
    with TemporaryDirectory() as folder:
        library = Path(folder) / "decode.so"
        done = subprocess.run(
            [compiler, *_FLAGS, str(_SOURCE), "-o", str(library)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{compiler}: {done.stderr.strip()}")
        loaded: Any = ctypes.CDLL(str(library))  # it stays mapped when its file is gone
    function: Callable[..., None] = loaded.paged_decode
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.paged_decode.argtypes = [*[pointer] * 7, ctypes.POINTER(Shape), number, ctypes.c_float]
    loaded.paged_decode.restype = None
    return function
