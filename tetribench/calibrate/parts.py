"""The parts of `task=gpu_bench`: each is a command of its own, with a share of the time that is left."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tetribench.instance.child import log_tail

GRACE_S = 10.0
"""What a part that is cut has for ending its instances and writing what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`arguments` of the command. Of two parts that are left, one with twice the `weight` may take twice as long.

    It is not begun where the file `needs` is not there.
    """

    name: str
    arguments: tuple[str, ...]
    weight: float
    needs: Path | None = None


class State(Enum):
    done = "done"
    cut = "cut"
    failed = "failed"
    left_out = "left out"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part: `seconds` that it took of the `limit_s` that it had, and why it is not done."""

    name: str
    state: State
    seconds: float = 0.0
    limit_s: float = 0.0
    reason: str = ""


def limit_of(parts: Sequence[Part], left_s: float) -> float:
    """Seconds that the first of `parts` may take, so that `left_s` is enough for all; what it saves, the others get."""
    return max(left_s, 0.0) * parts[0].weight / sum(part.weight for part in parts)


def run_part(part: Part, limit_s: float, log: Path) -> Outcome:
    """In a process of its own, whose end gives back the device's memory, whatever became of it.

    What it prints goes to `log`. At its limit it is ended like a run that is interrupted, then killed.
    """
    if part.needs is not None and not part.needs.exists():
        return Outcome(
            part.name, State.left_out, reason=f"needs {part.needs.name}, which an earlier part did not write"
        )
    started_s = time.monotonic()
    command = [sys.executable, "-m", "tetribench.cli", *part.arguments]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL) as child:
        try:
            code = child.wait(max(limit_s - GRACE_S, GRACE_S))
            is_cut = False
        except subprocess.TimeoutExpired:
            code, is_cut = _end(child), True
        except BaseException:
            _end(child)
            raise
    seconds = time.monotonic() - started_s
    if is_cut:
        return Outcome(part.name, State.cut, seconds, limit_s, f"its {limit_s:.0f} s were over")
    if code:
        return Outcome(part.name, State.failed, seconds, limit_s, f"exit code {code}{log_tail(log)}")
    return Outcome(part.name, State.done, seconds, limit_s)


def _end(child: "subprocess.Popen[bytes]") -> int:
    child.send_signal(signal.SIGTERM)
    try:
        return child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
