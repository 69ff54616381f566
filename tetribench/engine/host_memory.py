"""Host memory: what there is, and for the KV that is swapped out, as both engines' option `host_memory_gib`."""

from pathlib import Path

from tetribench.core.units import GIB

_MEMINFO = Path("/proc/meminfo")


def check_host_memory(host_memory_gib: float | None) -> None:
    """Raises ValueError for less than nothing; 0 is legal where nothing is swapped."""
    if host_memory_gib is not None and host_memory_gib < 0:
        raise ValueError(f"engine.host_memory_gib={host_memory_gib}: must not be negative")


def host_blocks(host_memory_gib: float, block_bytes: int) -> int:
    """Blocks that it holds. Raises ValueError for none: with nowhere to swap to, swapping is not an option."""
    num_blocks = int(host_memory_gib * GIB) // block_bytes
    if num_blocks < 1:
        raise ValueError(
            f"engine.host_memory_gib={host_memory_gib:.3g}: decode.preemption=swap needs at least one block, "
            f"{block_bytes / GIB:.3g} GiB"
        )
    return num_blocks


def available_bytes() -> int:
    """What the machine can hand out without swapping."""
    for line in _MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise ValueError(f"engine.device=cpu: {_MEMINFO} does not say how much memory is available")
