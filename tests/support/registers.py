"""C for processors with narrower registers than this one's, which can run it."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from tetribench.engine.native.compiler import FLAGS, compiled

ONLY_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="these are flags for x86")

REGISTERS = [
    pytest.param((), id="widest registers"),
    pytest.param(("-mno-avx512f",), id="without AVX-512", marks=ONLY_X86),
    pytest.param(("-mno-avx",), id="without AVX", marks=ONLY_X86),
]
"""The compiler's flags beside its usual ones."""


@contextmanager
def recompiled(flags: tuple[str, ...], compiling: ModuleType, kernels: Any, used_in: ModuleType) -> Iterator[None]:
    """What the cached function `kernels` of `compiling` gives `used_in` is compiled with `flags` meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "compiled", partial(compiled, flags=(*FLAGS, *flags)))
        narrower = kernels.__wrapped__()
        patch.setattr(used_in, kernels.__name__, lambda: narrower)
        yield
