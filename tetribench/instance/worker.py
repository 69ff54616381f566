"""A process of one instance or several: `python -m tetribench.instance.worker`, its `Assignment` pickled on stdin."""

import asyncio
import os
import pickle
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path

from tetribench.core.clock import WallClock, run_real
from tetribench.core.messages import Broken, Ready
from tetribench.engine.base import EngineInfo, with_predictor
from tetribench.instance.launch import InstanceSpec
from tetribench.instance.loop import InstanceLoop
from tetribench.instance.mail import Mail
from tetribench.instance.post import CONTROL
from tetribench.kv.links import link_for


@dataclass(frozen=True, slots=True)
class Hosted:
    """An instance of this process. `cores` are its own among those of the process, empty where it is not pinned."""

    spec: InstanceSpec
    cores: list[int]

    def spare_core(self, info: EngineInfo) -> int | None:
        """A core that is this instance's own, and that its engine, which takes one or several, does not need."""
        num_taken = info.num_devices if info.device == "cpu" else 1
        return self.cores[-1] if len(self.cores) > num_taken else None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the launcher tells a worker."""

    instances: list[Hosted]
    mail_folder: Path
    origin_s: float

    @property
    def cores(self) -> set[int]:
        """Of the process, empty where it is not pinned."""
        return {core for hosted in self.instances for core in hosted.cores}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    assignment: Assignment = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_die_with_launcher, daemon=True).start()
    if assignment.cores:
        os.sched_setaffinity(0, assignment.cores)
    run_real(_serve(assignment))


def _die_with_launcher() -> None:
    """The launcher holds the other end of stdin: when it is gone, however it went, so is this process."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held when the interpreter ends
        pass
    os._exit(1)


async def _serve(assignment: Assignment) -> None:
    """All instances on one event loop, until the last has ended. The first that breaks ends the process, and with it
    the others: they compute on one device, whose state nobody knows then."""
    serving = [asyncio.create_task(_host(hosted, assignment)) for hosted in assignment.instances]
    ended, going_on = await asyncio.wait(serving, return_when=asyncio.FIRST_EXCEPTION)
    for task in going_on:
        task.cancel()
    await asyncio.gather(*going_on, return_exceptions=True)
    if any(task.exception() is not None for task in ended):
        raise SystemExit(1)


async def _host(hosted: Hosted, assignment: Assignment) -> None:
    """An instance with a mailbox of its own. Tells why where it breaks, and raises."""
    name = hosted.spec.name
    mail = Mail(assignment.mail_folder, name)
    try:
        await _run(hosted, mail, WallClock(assignment.origin_s))
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        mail.send(CONTROL, Broken(name, reason))
        raise
    finally:
        mail.close()


async def _run(hosted: Hosted, mail: Mail, clock: WallClock) -> None:
    spec = hosted.spec
    engine = spec.engine.build(clock, spec.device)
    link = link_for(engine, spec.link, clock)
    await link.open()
    predictor = spec.predictor.build(engine, clock, hosted.spare_core(engine.info))
    info = with_predictor(engine.info, predictor)
    loop = InstanceLoop(
        name=spec.name,
        role=spec.role,
        scheduler_for=lambda role: spec.schedulers[role].build(spec.name, info),
        engine=engine,
        predictor=predictor,
        link=link,
        post=mail,
        clock=clock,
        report_period_s=spec.report_period_s,
    )
    mail.send(CONTROL, Ready(spec.name, spec.facts(info), link.handle()))
    serving, receiving = asyncio.create_task(loop.run()), asyncio.create_task(mail.receive(loop.receive))
    try:
        done, _ = await asyncio.wait([serving, receiving], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        receiving.cancel()
        serving.cancel()
        await asyncio.gather(serving, receiving, return_exceptions=True)
        link.close()
        predictor.close()
        engine.close()


if __name__ == "__main__":
    main()
