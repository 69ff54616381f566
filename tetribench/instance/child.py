"""What every child process of a run has, worker or server: its share of the cores, and a log."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

NUM_LOG_LINES = 5
"""Of a dead instance's log, this many last lines go into the message."""


async def start_child(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """A process whose standard input is ours to write to, and which prints to `log`.

    In a session of its own, so that the terminal's Ctrl-C reaches the launcher only.
    """
    with log.open("wb") as file:
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        )


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
