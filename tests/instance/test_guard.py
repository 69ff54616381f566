"""Nothing that a server started outlives the one that started it."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import is_alive, until
from tetribench.instance import guard

pytestmark = pytest.mark.alone

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
if sys.argv[2] == "ends":
    sys.exit(3)
time.sleep(60)
"""
"""A command with a process of its own, whose id it writes down."""

WORKING = r"""
import subprocess, sys
work = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ntime.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE)
child.stdout.readline()
"""
"""A command whose process has worked for half a second; it does not wait for it."""


def start(pid_file: Path, how: str) -> "subprocess.Popen[bytes]":
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, guard.__file__, str(core), sys.executable, "-c", FAMILY, str(pid_file), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    until(lambda: pid_file.is_file() and pid_file.read_text())
    return process


def test_the_whole_group_ends_with_stdin(tmp_path: Path) -> None:
    process = start(tmp_path / "pid", "stays")
    child = int((tmp_path / "pid").read_text())
    assert is_alive(child) and os.sched_getaffinity(child) == {min(os.sched_getaffinity(0))}
    assert os.getsid(child) == os.getsid(process.pid)  # whose weight it has
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30.0) == 1
    until(lambda: not is_alive(child))


def test_what_a_command_leaves_behind_is_ended_and_its_code_is_told(tmp_path: Path) -> None:
    process = start(tmp_path / "pid", "ends")
    assert process.wait(30.0) == 3
    until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_the_cpu_time_of_what_nobody_waited_for_is_told() -> None:
    def cpu_s() -> float:
        use = resource.getrusage(resource.RUSAGE_CHILDREN)
        return use.ru_utime + use.ru_stime

    before_s = cpu_s()
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, guard.__file__, str(core), sys.executable, "-c", WORKING]
    assert subprocess.Popen(command, stdin=subprocess.PIPE).wait(30.0) == 0
    assert cpu_s() - before_s >= 0.5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_ends_with_its_guard(tmp_path: Path, number: int) -> None:
    process = start(tmp_path / "pid", "stays")
    child = int((tmp_path / "pid").read_text())
    command = int(Path(f"/proc/{child}/stat").read_text().split()[3])
    process.send_signal(number)
    process.wait(30.0)
    until(lambda: not is_alive(command))
    os.kill(child, signal.SIGKILL)  # its parent's death is not its own; vLLM's processes look after that themselves
