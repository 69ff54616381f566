"""The null server as a process of its own, and what its diary says."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.clients import null_http
from tests.benchmarks.clients.load import GAP_S, TTFT_S, Ttft


@dataclass(frozen=True, slots=True)
class Truth:
    """`late_ms` is how long after their time chunks were written, p99: the server's own overload."""

    ttft: Ttft
    late_ms: float


@contextmanager
def null_server(ttft_s: float = TTFT_S, gap_s: float = GAP_S) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, null_http.__file__, str(ttft_s), str(gap_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _read(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/diary") as answer:
        read: dict[str, Any] = json.load(answer)
    return read


def forget(url: str) -> None:
    """Begin anew after a client that has failed."""
    _read(url)


def diary(url: str) -> Truth:
    """Of what was served since it was last read."""
    read = _read(url)
    if not read["responses"]:
        raise RuntimeError("nothing was served")
    ttft_ms = np.array([1e3 * (one["written_s"][0] - one["received_s"]) for one in read["responses"]])
    ttft = Ttft(len(ttft_ms), float(ttft_ms.mean()), float(np.percentile(ttft_ms, 99)))
    return Truth(ttft, float(np.percentile(read["late_s"], 99)) * 1e3)
