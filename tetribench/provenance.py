"""What a result was made with: commit, packages, machine. Everything that someone who repeats a run will ask for."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import tetribench

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "hydra-core", "omegaconf", "pyzmq", "msgspec")


def environment() -> dict[str, Any]:
    """Facts about the code, the packages and the machine. What cannot be had is absent, never guessed."""
    return {
        "tetribench": tetribench.__version__,
        **commit(),
        "python": platform.python_version(),
        "packages": _packages(),
        "machine": _machine(),
        "gpus": _gpus(),
    }


def _run(*command: str, cwd: Path | None = None) -> str | None:
    """The command's output, or None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> dict[str, Any]:
    """Of the checkout that the code runs from; an installed package has a version only."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return {}
    found = _run("git", "rev-parse", "HEAD", cwd=root)
    return {} if found is None else {"commit": found, "dirty": bool(_run("git", "status", "--porcelain", cwd=root))}


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))}
    facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        facts.update({"cpu": names[0]} if names else {})
    return facts


def _gpus() -> list[str]:
    listed = _run("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader")
    return listed.splitlines() if listed else []
