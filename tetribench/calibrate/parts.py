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

GRACE_S, GRACE_SHARE = 10.0, 0.1
"""What a part that is cut has to end its instances and write what it has: at most that share of its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`arguments` of the command. Of two parts that are left, one with twice the `weight` may take twice as long.

    It is not begun where the file `needs` is not there. It gets the `preferred` arguments where the file `prefers` is.
    """

    name: str
    arguments: tuple[str, ...]
    weight: float
    needs: Path | None = None
    prefers: Path | None = None
    preferred: tuple[str, ...] = ()


class State(Enum):
    done = "done"
    cut = "cut"
    failed = "failed"
    left_out = "left out"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part: `seconds` of the `limit_s` that it had, and why it is not done, or what it lacked."""

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
    has_less = part.prefers is not None and not part.prefers.exists()
    started_s, grace_s = time.monotonic(), min(GRACE_S, GRACE_SHARE * limit_s)
    command = [sys.executable, "-m", "tetribench.cli", *part.arguments, *(() if has_less else part.preferred)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL) as child:
        try:
            code = child.wait(limit_s - grace_s)
            is_cut = False
        except subprocess.TimeoutExpired:
            code, is_cut = _end(child, grace_s), True
        except BaseException:
            _end(child, GRACE_S)
            raise
    seconds = time.monotonic() - started_s
    if is_cut:
        return Outcome(part.name, State.cut, seconds, limit_s, f"its {limit_s:.0f} s were over")
    if code:
        return Outcome(part.name, State.failed, seconds, limit_s, f"exit code {code}{log_tail(log)}")
    reason = f"without {part.prefers.name}, which an earlier part did not write" if part.prefers and has_less else ""
    return Outcome(part.name, State.done, seconds, limit_s, reason)


def _end(child: "subprocess.Popen[bytes]", grace_s: float) -> int:
    child.send_signal(signal.SIGTERM)
    try:
        return child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
