"""C on the machine that runs it: which compiler it has, and a source file as a library of this process."""

import ctypes
import subprocess
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp-simd", "-fPIC", "-shared", f"-I{Path(__file__).parent}")
"""Headers are in this folder. Not -ffast-math: a library that is linked with it turns off denormal numbers in the
process that loads it."""

_COMPILERS = ("cc", "gcc", "clang")


def find_compiler() -> str | None:
    """Where a C compiler is."""
    return next(filter(None, map(which, _COMPILERS)), None)


def why_no_compiler() -> str | None:
    """The reason why nothing can be compiled; None where it can be tried."""
    if find_compiler() is None:
        return f"finds no C compiler: none of {', '.join(_COMPILERS)} is on the PATH"
    return None


def compiled(source: Path, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """`source`'s functions, compiled for this machine's processor; they run without the interpreter's lock.

    Raises RuntimeError with the compiler's complaint, or where there is none.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError(f"{source.name}: {why_no_compiler()}")
    with TemporaryDirectory() as folder:
        library = Path(folder) / f"{source.stem}.so"
        command = [compiler, *flags, str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{compiler}: {done.stderr.strip()}")
        return ctypes.CDLL(str(library))  # it stays mapped when its file is gone
