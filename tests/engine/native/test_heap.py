"""Memory that is given back to the C library is there for the next one who asks, without the system."""

import platform
import subprocess
import sys

import pytest

from tests.support.interpreter import environment
from tetribench.engine.native.heap import keep_freed_memory

PAGES = """
import resource
from tetribench.engine.native.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(8 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for it")
def test_it_is_not_touched_for_the_first_time_again() -> None:
    command = [sys.executable, "-c", PAGES]
    done = subprocess.run(command, env=environment(0), capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 1000 > 100 > kept


def test_another_c_library_does_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    keep_freed_memory()
