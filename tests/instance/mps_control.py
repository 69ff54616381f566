"""Stands in for NVIDIA's program: a daemon with `-f`, else what talks to it through the pipe folder.

`MPS_FAULT` says what is wrong with it: `ends` at once, `stays` when it is asked to quit, has `no_clients`.
"""

import os
import sys
import time
from pathlib import Path

PIPES, FAULT = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"]), os.environ.get("MPS_FAULT")
SERVER = "17"


def listen() -> None:
    if FAULT == "ends":
        sys.exit("no such device")
    control = PIPES / "control"
    control.write_text(str(os.getpid()))
    while control.exists():
        time.sleep(0.01)


def answer(command: str) -> None:
    if command == "get_server_list":
        print(SERVER)
    elif command == f"get_client_list {SERVER}" and FAULT != "no_clients":
        print("\n".join(clients()))
    elif command == "quit" and FAULT != "stays":
        (PIPES / "control").unlink()


def clients() -> list[str]:
    """Workers that are told of this very daemon."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                is_worker = b"tetribench.instance.worker" in (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if is_worker and f"CUDA_MPS_PIPE_DIRECTORY={PIPES}".encode() in environment:
                found.append(entry.name)
    return found


if sys.argv[1:] == ["-f"]:
    listen()
elif not (PIPES / "control").exists():
    sys.exit(1)
else:
    answer(sys.stdin.readline().strip())
