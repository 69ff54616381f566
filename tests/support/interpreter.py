"""Fresh interpreters."""

import os
from pathlib import Path


def environment(hash_seed: int) -> dict[str, str]:
    """For a fresh interpreter that imports this checkout, and that takes itself for nobody's worker."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    return {**inherited, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parents[2])}
