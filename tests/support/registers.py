"""C for processors with narrower registers than this one's, which can run it."""

import platform

import pytest

ONLY_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="these are flags for x86")

REGISTERS = [
    pytest.param((), id="widest registers"),
    pytest.param(("-mno-avx512f",), id="without AVX-512", marks=ONLY_X86),
    pytest.param(("-mno-avx",), id="without AVX", marks=ONLY_X86),
]
"""The compiler's flags beside its usual ones."""
