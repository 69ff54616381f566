import os
from pathlib import Path

import pytest

from tetribench.workload.arrivals import AtOnce
from tetribench.workload.classes import ClassWorkload


@pytest.fixture
def data() -> Path:
    """Published traces and prompts, which are not part of the repository."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("TETRIBENCH_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no published data at {folder}; set TETRIBENCH_DATA")
    return folder


@pytest.fixture
def mixed() -> ClassWorkload:
    return ClassWorkload(name="mixed", arrivals=AtOnce(), num_requests=200)
