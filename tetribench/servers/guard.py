"""Runs a command and ends all of it when stdin ends, however the other end went: `python guard.py CORES COMMAND...`.

A server starts processes of its own. They are one process group, which is ended as a whole. Only the standard library
is used, because this is run as a file beside each server.
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

PR_SET_PDEATHSIG = 1


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})  # those of what is run, too
    command = subprocess.Popen(
        sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
    )
    threading.Thread(target=_end_with_stdin, args=(command.pid,), daemon=True).start()
    code = command.wait()
    _signal(command.pid, signal.SIGKILL)  # whatever it has left behind
    os._exit(code if code >= 0 else 1)


def _die_with_parent() -> None:
    """For the case that this very process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
