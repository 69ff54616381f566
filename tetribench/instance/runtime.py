"""The combinations of the seams that the user chooses from: which clock, and where the instances live."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from tetribench.core.clock import Clock, VirtualClock, WallClock, run_real, run_virtual
from tetribench.core.garbage import rarely_collected
from tetribench.engine.hardware import Hardware
from tetribench.instance.inline import InlineLauncher
from tetribench.instance.launch import Launcher

Main = Callable[[Clock, Launcher], Coroutine[Any, Any, None]]


class Runtime(Protocol):
    name: str
    is_virtual: bool

    def run(self, main: Main, log_folder: Path) -> None:
        """Run `main` to its end on a fresh clock and launcher; what instances print goes to `log_folder`."""


class Sim:
    """Virtual time, all instances in this process; messages take as long as between processes on `hardware`."""

    name = "sim"
    is_virtual = True

    def __init__(self, *, hardware: Hardware | None = None) -> None:
        self.message_s = 0.0 if hardware is None else hardware.message_s

    def run(self, main: Main, log_folder: Path) -> None:
        clock = VirtualClock()

        async def checked() -> None:
            launcher = InlineLauncher(clock, self.message_s)
            await main(clock, launcher)
            launcher.check()

        with rarely_collected():
            run_virtual(clock, checked())


class Inline:
    """Real time, all instances in this process."""

    name = "inline"
    is_virtual = False

    def run(self, main: Main, log_folder: Path) -> None:
        clock = WallClock()

        async def checked() -> None:
            launcher = InlineLauncher(clock)
            await main(clock, launcher)
            launcher.check()

        run_real(checked())


class Process:
    """Real time, each instance in a process of its own. The timeouts bound its start and its end."""

    name = "process"
    is_virtual = False

    def __init__(self, *, start_timeout_s: float = 300.0, stop_timeout_s: float = 3.0) -> None:
        for option, seconds in {"start_timeout_s": start_timeout_s, "stop_timeout_s": stop_timeout_s}.items():
            if seconds <= 0:
                raise ValueError(f"runtime.{option}={seconds}: must be positive")
        self.start_timeout_s = start_timeout_s
        self.stop_timeout_s = stop_timeout_s

    def run(self, main: Main, log_folder: Path) -> None:
        from tetribench.instance.process import ProcessLauncher  # ZeroMQ only where there are processes

        clock = WallClock()

        async def launched() -> None:
            launcher = ProcessLauncher(
                clock=clock,
                log_folder=log_folder,
                start_timeout_s=self.start_timeout_s,
                stop_timeout_s=self.stop_timeout_s,
            )
            try:
                await main(clock, launcher)
            finally:
                await launcher.stop()  # its sockets too, where `main` came to nothing before anything was started

        run_real(launched())
