"""Hardware profiles as `task=calibrate` writes them, made up."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tetribench.engine.local_profile import PROFILE_FORMAT

CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("bytes_per_s", "flops_per_s", "copy_bytes_per_s", "host_bytes_per_s"), 1e10),
    "name": "local cpu",
    "source": "made up",
    "memory_bytes": 1e9,
    "overhead_s": 0.0,
}


def write_profile(
    path: Path, constants: Mapping[str, Any] = CONSTANTS, *, model: str = "opt_tiny", chunk_size: int | None = None
) -> str:
    profile: dict[str, Any] = {"format": PROFILE_FORMAT, "model": model, "num_busy": 2, "machine": {}, "steps": []}
    profile |= {"constants": dict(constants), "engine_by_itself": dict(constants)}
    if chunk_size is not None:
        profile["chunk"] = {"chunk_size": chunk_size}
    path.write_text(json.dumps(profile))
    return str(path)
