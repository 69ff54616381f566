"""What every child process of a run has, worker or server: its share of the cores, its rank on them, and a log."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

NUM_LOG_LINES = 5
"""Of a dead instance's log, this many last lines go into the message."""

NICENESS = 10
"""More than ours: a tenth of our weight."""

SESSION_PERIOD_S = 0.1
"""Linux lets the sessions of all users who are not root be weighed once in this time."""


async def start_child(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """A process whose standard input is ours to write to, and which prints to `log`.

    In a session of its own, so that the terminal's Ctrl-C reaches the launcher only.
    """
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        await _yield_to_us(process.pid)
    except ProcessLookupError:
        pass  # it has ended
    except BaseException:
        process.kill()
        raise
    return process


async def _yield_to_us(process: int) -> None:
    """Where it has a core together with this process, which sends and measures, it waits for us.

    Linux may weigh whole sessions against each other, and then the niceness of processes counts only within one.
    """
    os.setpriority(os.PRIO_PROCESS, process, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    session = Path(f"/proc/{process}/autogroup")
    while session.exists():
        try:
            session.write_text(str(NICENESS))
        except BlockingIOError:
            await asyncio.sleep(SESSION_PERIOD_S)
        except OSError:
            return  # nobody may weigh them here
        else:
            return


def log_tail(path: Path) -> str:
    """The last lines of a log, each on a line of its own; nothing where there is no log."""
    if not path.exists():
        return ""
    lines = path.read_text(errors="replace").strip().splitlines()[-NUM_LOG_LINES:]
    return "".join(f"\n  {path.name}: {line}" for line in lines)


def cores_of(index: int, num_instances: int, cores: list[int]) -> list[int]:
    """The share of `cores` that an instance is pinned to: disjoint while there are enough, else one core in turn."""
    if len(cores) < num_instances:
        return [cores[index % len(cores)]]
    share = len(cores) // num_instances
    return cores[index * share : (index + 1) * share]
