"""How each client is run, and where it writes what it has measured."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.clients.load import NUM_OUTPUT_TOKENS, Load, Ttft
from tests.benchmarks.clients.null_http import MODEL
from tests.peers import AIPERF_PYTHON, GUIDELLM_PYTHON, NO_AIPERF, NO_GUIDELLM, NO_SGLANG, SGLANG_PYTHON

TIMEOUT_S = 150.0
NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""A peer has an environment of its own."""

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Nothing is to be fetched, and it is not tried."""

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that clients read."""

    tokenizer: Path
    prompts: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` is from the server's address, a load, inputs and an empty folder for results; `read` reads them."""

    name: str
    python: Path
    missing: str
    """What is said where there is no such interpreter."""
    command: Callable[[str, Load, Inputs, Path], list[str]]
    read: Callable[[Path], Ttft]
    environment: Mapping[str, str] = field(default_factory=lambda: OFFLINE)

    def measure(self, url: str, load: Load, inputs: Inputs, folder: Path) -> Ttft:
        """Raises RuntimeError where it fails, with the end of what it printed, or takes too long."""
        folder.mkdir(parents=True)
        passed_on = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
        command = [str(self.python), *self.command(url, load, inputs, folder)]
        with subprocess.Popen(
            command,
            cwd=folder,
            env={**passed_on, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{self.name} did not end within {TIMEOUT_S:.0f} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # those that it started, too
        if process.returncode:
            raise RuntimeError(f"{self.name} ended with code {process.returncode}:\n{said[-2000:]}")
        return self.read(folder)


def _own(url: str, load: Load, inputs: Inputs, folder: Path) -> list[str]:
    return ["-m", "tests.benchmarks.clients.own", url, str(load.num_streams), str(load.num_requests), str(folder)]


def _read_own(folder: Path) -> Ttft:
    return Ttft(**json.loads((folder / "ttft.json").read_text()))


def _guidellm(url: str, load: Load, inputs: Inputs, folder: Path) -> list[str]:
    backend = (
        f"kind=openai_http,target={url},model={MODEL},request_format=/v1/completions,max_tokens={NUM_OUTPUT_TOKENS}"
    )
    return [
        *("-m", "guidellm", "run", "--backend", backend),
        *("--profile", f"kind=concurrent,streams={load.num_streams}"),
        *("--constraint", f"kind=max_requests,count={load.num_requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={inputs.tokenizer}"),
        *("--data", f"kind=json_file,path={inputs.prompts}"),
        *("--output", f"kind=json,path={folder / 'result.json'}", "--disable-console"),
    ]


def _read_guidellm(folder: Path) -> Ttft:
    ((benchmark),) = json.loads((folder / "result.json").read_text())["benchmarks"]
    ttft = benchmark["metrics"]["time_to_first_token_ms"]["successful"]
    return Ttft(ttft["count"], ttft["mean"], ttft["percentiles"]["p99"])


def _aiperf(url: str, load: Load, inputs: Inputs, folder: Path) -> list[str]:
    return [
        *("-m", "aiperf", "profile", "--model", MODEL, "--url", url, "--endpoint-type", "completions", "--streaming"),
        *("--tokenizer", str(inputs.tokenizer), "--input-file", str(inputs.prompts)),
        *("--custom-dataset-type", "single_turn", "--extra-inputs", f"max_tokens:{NUM_OUTPUT_TOKENS}"),
        *("--concurrency", str(load.num_streams), "--request-count", str(load.num_requests)),
        *("--artifact-dir", str(folder / "result"), "--ui", "none"),
        *("--no-server-metrics", "--no-gpu-telemetry"),  # there are none, and a busy machine may end those who look
    ]


def _read_aiperf(folder: Path) -> Ttft:
    result = json.loads((folder / "result" / "profile_export_aiperf.json").read_text())
    ttft = result["time_to_first_token"]
    return Ttft(ttft["count"], ttft["avg"], ttft["p99"])


def _sglang(url: str, load: Load, inputs: Inputs, folder: Path) -> list[str]:
    return [
        *("-m", "sglang.benchmark.serving", "--backend", "sglang-oai", "--base-url", url, "--model", MODEL),
        *("--tokenizer", str(inputs.tokenizer), "--dataset-name", "custom", "--dataset-path", str(inputs.prompts)),
        *("--sharegpt-output-len", str(NUM_OUTPUT_TOKENS), "--num-prompts", str(load.num_requests)),
        *("--max-concurrency", str(load.num_streams), "--warmup-requests", "0", "--ready-check-timeout-sec", "0"),
        *("--output-file", str(folder / "result.jsonl"), "--disable-tqdm"),
    ]


def _read_sglang(folder: Path) -> Ttft:
    result = json.loads((folder / "result.jsonl").read_text())
    return Ttft(result["completed"], result["mean_ttft_ms"], result["p99_ttft_ms"])


OWN = Peer("tetribench", Path(sys.executable), "", _own, _read_own, {"PYTHONPATH": str(ROOT)})
PEERS = [
    Peer("GuideLLM", GUIDELLM_PYTHON, NO_GUIDELLM, _guidellm, _read_guidellm),
    Peer("AIPerf", AIPERF_PYTHON, NO_AIPERF, _aiperf, _read_aiperf, {}),  # offline it takes the folder for a hub's id
    Peer("SGLang", SGLANG_PYTHON, NO_SGLANG, _sglang, _read_sglang),
]
