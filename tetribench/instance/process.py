"""Each instance in its own process on this machine, pinned to its share of the cores; or in one with those that it
shares a device with."""

import asyncio
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Set
from pathlib import Path

from tetribench.core.clock import WallClock
from tetribench.core.messages import Broken, Message, Peers, Ready, Stop
from tetribench.engine.sharing import Sharing
from tetribench.instance.child import cores_of, log_tail, start_child
from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.instance.mail import Mail
from tetribench.instance.mps import MpsDaemon
from tetribench.instance.post import CONTROL
from tetribench.instance.worker import Assignment, Hosted


class ProcessLauncher:
    """Starts workers, carries their messages, notices when one dies.

    What a worker prints goes to `<log_folder>/<name>.log`, of several names where it hosts several instances, which die
    together. `start_timeout_s` bounds the time from the first process to the last `Ready`; `stop_timeout_s` the time
    that workers have to end by themselves before they are killed.
    """

    def __init__(
        self, *, clock: WallClock, log_folder: Path, start_timeout_s: float = 300.0, stop_timeout_s: float = 3.0
    ) -> None:
        self._clock = clock
        self._log_folder = log_folder
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._mail_folder = Path(tempfile.mkdtemp(prefix="tetribench-"))
        self._mail = Mail(self._mail_folder, CONTROL)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        """By instance; several may be in one."""
        self._logs: dict[str, Path] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._mps: MpsDaemon | None = None
        self._num_devices = 1
        self._num_instances = 1
        self._ready: dict[str, Ready] = {}
        self._starting: dict[str, asyncio.Future[Ready]] = {}
        self._leaving: set[str] = set()
        self._has_started = False
        self._on_message: Callable[[Message], None] = lambda message: None
        self._is_stopping = False

    async def start(self, specs: list[InstanceSpec], on_message: Callable[[Message], None]) -> dict[str, Ready]:
        self._on_message = on_message
        self._num_devices = len({spec.device for spec in specs})
        self._num_instances = len(specs)
        self._tasks.append(asyncio.create_task(self._receive_all()))
        self._log_folder.mkdir(parents=True, exist_ok=True)
        if any(spec.sharing is Sharing.mps for spec in specs):
            self._mps = MpsDaemon(self._mail_folder / "mps", self._log_folder / "mps")
            await self._mps.start(self._start_timeout_s)
        for together in _by_process(specs):
            await self._start_process(together)
        await self._all_ready([spec.name for spec in specs])
        if self._mps is not None:
            await self._mps.check(len(specs))
        for name in self._ready:
            self._introduce(name, self._ready.keys() - {name})
        self._has_started = True
        return dict(self._ready)

    async def join(self, spec: InstanceSpec) -> Ready:
        await self._start_process([spec])
        await self._all_ready([spec.name])
        for name in self._ready.keys() - {spec.name}:
            self._introduce(name, {spec.name})
        self._introduce(spec.name, self._ready.keys() - {spec.name})
        return self._ready[spec.name]

    async def _all_ready(self, names: list[str]) -> None:
        """Raises InstanceFailed for one that died or took too long."""
        starting = [self._starting[name] for name in names]
        try:
            await asyncio.wait_for(asyncio.gather(*starting), self._start_timeout_s)
        except TimeoutError:
            missing = ", ".join(sorted(set(names) - self._ready.keys()))
            raise InstanceFailed(f"{missing}: not ready after {self._start_timeout_s:.0f} s") from None
        if not self._ready.keys() >= set(names):
            raise InstanceFailed(f"{', '.join(sorted(set(names) - self._ready.keys()))}: ended while others started")

    def _introduce(self, name: str, peers: Set[str]) -> None:
        self.send(name, Peers({peer: self._ready[peer].link_handle for peer in sorted(peers)}))

    async def _start_process(self, specs: list[InstanceSpec]) -> None:
        names = [spec.name for spec in specs]
        log = self._log_folder / f"{'+'.join(names)}.log"
        for name in names:
            self._starting[name] = asyncio.get_running_loop().create_future()
            self._starting[name].add_done_callback(lambda ready: ready.cancelled() or ready.exception())
            self._logs[name] = log
        inherited = os.environ if self._mps is None else self._mps.client_environment
        environment = {**inherited, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "tetribench.instance.worker"]
        process = await start_child(command, log, environment)
        self._processes |= dict.fromkeys(names, process)
        assert process.stdin is not None
        hosted = [Hosted(spec, self._cores(spec)) for spec in specs]
        process.stdin.write(pickle.dumps(Assignment(hosted, self._mail_folder, self._clock.origin_s)))
        self._tasks.append(asyncio.create_task(self._watch(names, process)))

    def _cores(self, spec: InstanceSpec) -> list[int]:
        """Those of its device; beside a GPU that several have, each has its own."""
        available = sorted(os.sched_getaffinity(0))
        if self._num_devices == self._num_instances:
            return cores_of(spec.device % self._num_devices, self._num_devices, available)
        if spec.engine.runs_on_a_core:  # one: with two cores, two instances would have one each
            return cores_of(spec.device, self._num_devices, available)[:1]
        return cores_of(spec.index, self._num_instances, available)

    async def _receive_all(self) -> None:
        """An error in taking messages in leaves the run deaf: it ends it."""
        try:
            await self._mail.receive(self._receive)
        except Exception as error:
            self._on_message(Broken(CONTROL, f"{type(error).__name__}: {error}"))

    async def _watch(self, names: list[str], process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._is_stopping and not self._leaving.issuperset(names):
            await asyncio.sleep(0.1)  # a last `Broken` says more than an exit code, and may still be on its way
            for name in names:
                self._receive(Broken(name, f"process ended with code {code}"))

    def _receive(self, message: Message) -> None:
        match message:
            case Ready(instance):
                self._ready[instance] = message
                if not self._starting[instance].done():
                    self._starting[instance].set_result(message)
            case Broken(instance, reason) if not self._is_stopping:
                self._lose(instance, f"{reason}{log_tail(self._logs[instance])}")
            case Broken():
                pass
            case _:
                self._on_message(message)

    def _lose(self, name: str, reason: str) -> None:
        """An instance is gone: said once, to whoever waits for it, else to control. `start` waits for all of them."""
        waiting = [name] if self._has_started else list(self._starting)
        pending = [one for one in map(self._starting.get, waiting) if one is not None and not one.done()]
        for one in pending:
            one.set_exception(InstanceFailed(f"{name}: {reason}"))
        if pending:
            return
        if name == CONTROL or self._ready.pop(name, None) is not None:
            self._mail.forget(name)
            self._on_message(Broken(name, reason))

    def send(self, to: str, message: Message) -> None:
        if to in self._ready:
            self._mail.send(to, message)

    def catch_up(self) -> None:
        """In real time nothing is held back."""

    def kill(self, name: str) -> None:
        if name in self._ready and self._processes[name].returncode is None:
            self._processes[name].kill()

    async def leave(self, name: str) -> None:
        others = [other for other, process in self._processes.items() if process is self._processes[name]]
        assert others == [name], "instances that share a device neither come nor go"
        self._leaving.add(name)
        self.send(name, Stop())
        self._ready.pop(name, None)
        await self._processes[name].wait()
        self._mail.forget(name)

    async def stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        for name, process in self._processes.items():
            if process.returncode is None and name in self._ready:
                self.send(name, Stop())
            elif process.returncode is None:
                process.kill()
        waits = [asyncio.create_task(process.wait()) for process in self._processes.values()]
        if waits:
            await asyncio.wait(waits, timeout=self._stop_timeout_s)
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*waits)
        if self._mps is not None:
            await self._mps.stop(self._stop_timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._mail.close()
        shutil.rmtree(self._mail_folder, ignore_errors=True)


def _by_process(specs: list[InstanceSpec]) -> list[list[InstanceSpec]]:
    """Those together that share a device from within one process."""
    found: dict[int | str, list[InstanceSpec]] = {}
    for spec in specs:
        found.setdefault(spec.device if spec.sharing.is_in_one_process else spec.name, []).append(spec)
    return list(found.values())
