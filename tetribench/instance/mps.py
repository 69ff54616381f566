"""NVIDIA's MPS, by which processes compute on one GPU at the same time: a daemon of the run's own."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from tetribench.engine.sharing import MPS_CONTROL
from tetribench.instance import guard
from tetribench.instance.child import log_tail, start_child
from tetribench.instance.launch import InstanceFailed

ANSWER_TIMEOUT_S = 5.0
POLL_S = 0.1

VISIBLE = "CUDA_VISIBLE_DEVICES"


class MpsDaemon:
    """Processes with `client_environment` are its clients from `start` to `stop`.

    It listens in `pipe_folder`, whose path must be short because there are sockets in it, and logs into `log_folder`:
    it meets no other daemon of the machine. The card's settings stay as they are.
    """

    def __init__(self, pipe_folder: Path, log_folder: Path) -> None:
        self._pipe_folder = pipe_folder
        self._log_folder = log_folder
        self._environment = {
            **os.environ,
            "CUDA_MPS_PIPE_DIRECTORY": str(pipe_folder),
            "CUDA_MPS_LOG_DIRECTORY": str(log_folder),
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def client_environment(self) -> dict[str, str]:
        """Without the devices that may be seen: the daemon has numbered those anew, and a client would look for them
        among the new numbers."""
        return {name: value for name, value in self._environment.items() if name != VISIBLE}

    async def start(self, timeout_s: float) -> None:
        """Return when it answers. Raises InstanceFailed where it does not."""
        self._pipe_folder.mkdir(parents=True)
        self._log_folder.mkdir(parents=True, exist_ok=True)
        log, cores = self._log_folder / "daemon.log", ",".join(map(str, sorted(os.sched_getaffinity(0))))
        command = [sys.executable, guard.__file__, cores, MPS_CONTROL, "-f"]
        self._process = await start_child(command, log, self._environment)
        try:
            async with asyncio.timeout(timeout_s):
                while await self._ask("get_server_list") is None:
                    if self._process.returncode is not None:
                        code = self._process.returncode
                        raise InstanceFailed(f"{MPS_CONTROL}: ended with code {code}{log_tail(log)}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise InstanceFailed(f"{MPS_CONTROL}: not ready after {timeout_s:.0f} s{log_tail(log)}") from None

    async def check(self, num_clients: int) -> None:
        """Raises InstanceFailed unless there are so many: a process that does not reach the daemon computes all the
        same, in turns with the others."""
        found = 0
        for server in await self._ask("get_server_list") or []:
            found += len(await self._ask(f"get_client_list {server}") or [])
        if found < num_clients:
            raise InstanceFailed(
                f"system.tetri.sharing=mps: of {num_clients} instances {found} are clients of MPS, others take turns"
            )

    async def stop(self, timeout_s: float) -> None:
        """After its clients. It is asked first, and then ended with all that it has started."""
        if self._process is None:
            return
        if self._process.returncode is None:
            await self._ask("quit")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout_s)
        assert self._process.stdin is not None
        self._process.stdin.close()  # the guard's sign to end it
        await self._process.wait()

    async def _ask(self, command: str) -> list[str] | None:
        """The lines of the daemon's answer; None where it gives none."""
        asking = await asyncio.create_subprocess_exec(
            MPS_CONTROL,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._environment,
        )
        try:
            answer, _ = await asyncio.wait_for(asking.communicate(f"{command}\n".encode()), ANSWER_TIMEOUT_S)
        except TimeoutError:
            asking.kill()
            await asking.wait()
            return None
        return answer.decode().split() if asking.returncode == 0 else None
