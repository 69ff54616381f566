"""Runs a command and ends all of it when stdin ends, however the other end went: `python guard.py CORES COMMAND...`.

A server or a daemon starts processes of its own. They are one process group, which is ended as a whole, and all are
waited for: the CPU time of a process that nobody waits for is nobody's, and would be taken for another program's. Only
the standard library is used, because this is run as a file beside each of them.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 3.0
"""From being asked to end until being ended."""

REAP_S = 5.0
"""From being killed until the last of them must be gone; one that has left the group is left alone after that."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})  # those of what is run, too
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # whoever loses its parent becomes a child of this process
    command = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_parent)
    threading.Thread(target=_end_with_stdin, args=(command.pid,), daemon=True).start()
    code = command.wait()
    _signal(command.pid, signal.SIGKILL)  # whatever it has left behind
    _reap()
    os._exit(code if code >= 0 else 1)


def _die_with_parent() -> None:
    """For the case that this very process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _reap() -> None:
    until_s = time.monotonic() + REAP_S
    with contextlib.suppress(ChildProcessError):  # there is none any more
        while time.monotonic() < until_s:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _end_with_stdin(group: int) -> None:
    while os.read(0, 1):
        pass
    _signal(group, signal.SIGTERM)
    time.sleep(GRACE_S)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    main()
