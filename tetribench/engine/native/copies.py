"""Many copies between two memories of the host as one call, without the interpreter and its lock."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tetribench.engine.native.compiler import compiled
from tetribench.engine.spans import Spans

_SOURCE = Path(__file__).with_name("copy.c")
_MUCH_BYTES = 4 * 2**20
"""Of the caches, which are the computation's. What a machine says of its last one is no guide: a virtual one has a part
of it."""


@cache
def why_not_native() -> str | None:
    """The reason why there is no such call on this machine; compiles it."""
    try:
        _function()
    except RuntimeError as error:
        return str(error)
    return None


def copy_native(source: int, target: int, spans: Spans, is_read_next: bool = False) -> None:
    """Between the memories at these addresses, in which `spans` must lie. None may overlap its own target.

    What would fill much of the caches goes past them, unless the target is read next.
    """
    rows = spans.rows
    goes_past = not is_read_next and spans.num_bytes >= _MUCH_BYTES
    _function()(source, target, rows.ctypes.data, len(rows), goes_past)


@cache
def _function() -> Callable[..., None]:
    """`copy_spans` of copy.c. Raises RuntimeError with the compiler's complaint."""
    library: Any = compiled(_SOURCE)
    function: Callable[..., None] = library.copy_spans
    library.copy_spans.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int]
    library.copy_spans.restype = None
    return function
