"""What a result was made with: commit, packages, machine. Everything that someone who repeats a run will ask for."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import tetribench

_CPU = Path("/sys/devices/system/cpu")

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "hydra-core", "omegaconf", "pyzmq", "msgspec")


def environment() -> dict[str, Any]:
    """Facts about the code, the packages and the machine, as they are now.

    What cannot be had is absent, or None where its absence matters to whoever times something; never guessed.
    """
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
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "cpu": _cpu_model(),
        **_clocks(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return None
    names = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
    return next(names, None)


def _clocks() -> dict[str, Any]:
    """Of the cores that this process may use: their governors, and the slowest of their clocks, now and at most.

    A virtual machine most often tells none of them.
    """
    folders = [_CPU / f"cpu{core}" / "cpufreq" for core in sorted(os.sched_getaffinity(0))]
    governors, now_khz, max_khz = (
        {text for folder in folders if (text := _content(folder / name))}
        for name in ("scaling_governor", "scaling_cur_freq", "cpuinfo_max_freq")
    )
    return {
        "governor": ", ".join(sorted(governors)) or None,
        "clock_now_mhz": _slowest_mhz(now_khz),
        "clock_max_mhz": _slowest_mhz(max_khz),
    }


def _slowest_mhz(clocks_khz: set[str]) -> int | None:
    return min((round(int(clock) / 1000) for clock in clocks_khz), default=None)


def _content(file: Path) -> str | None:
    """Of a file of one line; None where it is missing or may not be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _gpus() -> list[str]:
    listed = _run("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader")
    return listed.splitlines() if listed else []
