"""Servers of vLLM, each a process group of its own on its device's share of the cores."""

import asyncio
import os
import pickle
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.instance import guard
from tetribench.instance.child import cores_of, log_tail, start_child
from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.servers.api import MODEL
from tetribench.servers.fleet import OnDeath
from tetribench.servers.refused import Refused

if TYPE_CHECKING:
    from tetribench.servers.http import Http

POLL_S = 0.25
HOST = "127.0.0.1"
STOP_TIMEOUT_S = guard.GRACE_S + 5.0

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # it then says its configuration
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Its interpreter has an environment of its own."""

TRANSFER = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmServers:
    """What each server is started with. `python` is an interpreter that has vLLM; `options` go to its command line."""

    python: Path
    engine: HFEngine
    options: Sequence[str]
    start_timeout_s: float

    def build(self, log_folder: Path) -> "VllmFleet":
        return VllmFleet(self, log_folder)


@dataclass(slots=True)
class _Server:
    process: asyncio.subprocess.Process
    port: int
    cores: list[int]
    is_ready: bool = False


class VllmFleet:
    """The weights are saved as a checkpoint first, so that it serves the very ones that our engine has."""

    def __init__(self, servers: VllmServers, log_folder: Path) -> None:
        self._servers = servers
        self._log_folder = log_folder
        self._folder = Path(tempfile.mkdtemp(prefix="tetribench-vllm-"))
        self._running: dict[str, _Server] = {}
        self._versions: dict[str, dict[str, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._on_death: OnDeath = lambda name, reason: None

    async def start(self, specs: list[InstanceSpec], http: "Http", on_death: OnDeath) -> dict[str, str]:
        self._on_death = on_death
        self._log_folder.mkdir(parents=True, exist_ok=True)
        model = await self._model()
        is_apart = any(not spec.role.takes_requests for spec in specs)
        for spec in specs:
            await self._start_one(spec, len({one.device for one in specs}), model, is_apart)
        self._tasks = [asyncio.create_task(self._until_healthy(spec.name, http)) for spec in specs]
        try:
            async with asyncio.timeout(self._servers.start_timeout_s):
                await asyncio.gather(*self._tasks)
        except TimeoutError:
            missing = ", ".join(name for name, server in self._running.items() if not server.is_ready)
            raise InstanceFailed(f"{missing}: not ready after {self._servers.start_timeout_s:.0f} s") from None
        self._tasks = [asyncio.create_task(self._watch(name)) for name in self._running]
        return {name: self._address(name) for name in self._running}

    def _address(self, name: str) -> str:
        return f"http://{HOST}:{self._running[name].port}"

    async def _model(self) -> str:
        """What vLLM loads: a directory or hub id as it is, everything else as a checkpoint."""
        engine = self._servers.engine
        if engine.model.path is not None and engine.model.gguf_file is None:
            return engine.model.location()
        folder, log = self._folder / "model", self._log_folder / "export.log"
        exporting = await start_child([sys.executable, "-m", "tetribench.engine.hf.export", str(folder)], log)
        try:
            await exporting.communicate(pickle.dumps(engine))
        finally:
            if exporting.returncode is None:
                exporting.kill()
        if exporting.returncode:
            raise InstanceFailed(f"the weights could not be saved for vLLM{log_tail(log)}")
        return str(folder)

    async def _start_one(self, spec: InstanceSpec, num_devices: int, model: str, is_apart: bool) -> None:
        cores = cores_of(spec.device % num_devices, num_devices, sorted(os.sched_getaffinity(0)))
        port, is_cuda = _free_port(), self._servers.engine.resolved_device() is Device.cuda
        environment = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON} | ENVIRONMENT
        if is_cuda:
            environment["CUDA_VISIBLE_DEVICES"] = str(spec.device)
        else:
            environment |= {"VLLM_CPU_OMP_THREADS_BIND": str(cores[0]), "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
        if is_apart:
            environment |= {"VLLM_NIXL_SIDE_CHANNEL_HOST": HOST, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(_free_port())}
        command = self._command(model, port, is_cuda=is_cuda, is_apart=is_apart)
        guarded = [sys.executable, guard.__file__, ",".join(map(str, cores)), *command]
        process = await start_child(guarded, self._log_folder / f"{spec.name}.log", environment)
        self._running[spec.name] = _Server(process, port, cores)

    def _command(self, model: str, port: int, *, is_cuda: bool, is_apart: bool) -> list[str]:
        engine = self._servers.engine
        kv_bytes = engine.num_blocks() * engine.kv_bytes_per_block()
        command = [
            *(str(self._servers.python), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", model, "--served-model-name", MODEL, "--skip-tokenizer-init"),
            *("--host", HOST, "--port", str(port), "--disable-uvicorn-access-log"),
            *("--dtype", engine.resolved_dtype().value, "--kv-cache-memory-bytes", str(kv_bytes)),
            *("--max-model-len", str(engine.model.shape().max_context_tokens)),
            "--no-enable-prefix-caching",  # our engine has none
        ]
        if not is_cuda:
            command.append("--enforce-eager")
        if is_apart:
            transfer = TRANSFER | {"kv_buffer_device": "cuda" if is_cuda else "cpu"}
            command += ["--kv-transfer-config", msgspec.json.encode(transfer).decode()]
        return [*command, *self._servers.options]

    async def _until_healthy(self, name: str, http: "Http") -> None:
        server, address = self._running[name], self._address(name)
        while True:
            if server.process.returncode is not None:
                raise InstanceFailed(f"{name}: {self._ended(name)}")
            try:
                await http.get(f"{address}/health")
                version = msgspec.json.decode(await http.get(f"{address}/version"), type=dict[str, str])
            except Refused:
                await asyncio.sleep(POLL_S)
                continue
            self._versions[name] = {"vllm": version.get("version", "unknown")}
            server.is_ready = True
            return

    def _ended(self, name: str) -> str:
        tail = log_tail(self._log_folder / f"{name}.log")
        return f"its server ended with code {self._running[name].process.returncode}{tail}"

    async def _watch(self, name: str) -> None:
        await self._running[name].process.wait()
        self._on_death(name, self._ended(name))

    def facts(self, spec: InstanceSpec) -> dict[str, Any]:
        return {"num_devices": 1, "attention": "vLLM's own", "versions": self._versions[spec.name]}

    def kill(self, name: str) -> None:
        self._end(self._running[name])

    def _end(self, server: _Server) -> None:
        """The guard ends the whole of it once its stdin is closed."""
        if server.process.stdin is not None:
            server.process.stdin.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._running.values():
            self._end(server)
        waits = [asyncio.create_task(server.process.wait()) for server in self._running.values()]
        if waits:
            await asyncio.wait(waits, timeout=STOP_TIMEOUT_S)
        for server in self._running.values():
            if server.process.returncode is None:
                server.process.kill()
        await asyncio.gather(*waits)
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
