"""Where others are that tests and benchmarks run beside: each has an environment, which `make peers` makes."""

import os
from pathlib import Path


def _python(name: str) -> Path:
    own = Path(__file__).parents[1] / f".venv-{name}" / "bin" / "python"
    return Path(os.environ.get(f"TETRIBENCH_{name.upper()}_PYTHON", own))


def _missing(title: str, name: str, python: Path) -> str:
    return f"there is no {title} ({python}); `make peers`, or set TETRIBENCH_{name.upper()}_PYTHON"


VLLM_PYTHON = _python("vllm")
NO_VLLM = _missing("vLLM", "vllm", VLLM_PYTHON)
GUIDELLM_PYTHON = _python("guidellm")
NO_GUIDELLM = _missing("GuideLLM", "guidellm", GUIDELLM_PYTHON)
AIPERF_PYTHON = _python("aiperf")
NO_AIPERF = _missing("AIPerf", "aiperf", AIPERF_PYTHON)
SGLANG_PYTHON = _python("sglang")
NO_SGLANG = _missing("SGLang", "sglang", SGLANG_PYTHON)
