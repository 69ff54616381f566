"""Where other engines are, for tests and benchmarks that run beside them."""

import os
from pathlib import Path

VLLM_PYTHON = Path(
    os.environ.get("TETRIBENCH_VLLM_PYTHON", Path(__file__).parents[1] / ".venv-vllm" / "bin" / "python")
)
NO_VLLM = f"there is no vLLM ({VLLM_PYTHON}); `make peers`, or set TETRIBENCH_VLLM_PYTHON"
