"""What the client adds to TTFT and ITL at 64 streams, and how much one process sends and takes in: `make bench`.

Two null instances, each in a process of its own, on the same cores as the client. extra_info has the error of the mean
and of p99 in milliseconds. Marks: 2 ms and 10 ms at 64 streams on two cores.
"""

from pathlib import Path

import pytest
from numpy.random import default_rng
from pytest_benchmark.fixture import BenchmarkFixture

from tetribench.core.request import Request
from tetribench.drive.calibration import calibrate
from tetribench.drive.loadgen import ClosedLoop, Loop, OpenLoop
from tetribench.instance.runtime import Process
from tetribench.metrics.client_error import ClientError, StatisticError

PROMPT_IDS = tuple(range(4, 304))
LOAD_S = 5.0


def requests(num_requests: int, per_s: float, output: int) -> list[Request]:
    """Poisson arrivals."""
    arrivals_s = default_rng(0).exponential(1.0 / per_s, num_requests).cumsum()
    sizes = {"num_prompt_tokens": len(PROMPT_IDS), "prompt_ids": PROMPT_IDS, "max_output_tokens": output}
    return [Request(id=id, arrival_s=float(arrival_s), **sizes) for id, arrival_s in enumerate(arrivals_s)]  # type: ignore[arg-type]


LOADS = {
    "64 streams, closed": (requests(640, 1.0, 50), ClosedLoop(concurrency=64)),
    "64 streams, Poisson": (requests(400, 64 / 0.5, 50), OpenLoop()),
    "64 at once": (requests(64, 1e6, 50), OpenLoop()),
    "256 streams, Poisson": (requests(1000, 256 / 0.5, 50), OpenLoop()),
    "2,000 requests/s": (requests(6000, 2000.0, 1), OpenLoop()),
    "4,000 requests/s": (requests(12000, 4000.0, 1), OpenLoop()),
}


@pytest.mark.parametrize("load", LOADS)
def test_client_error(load: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    asked, loop = LOADS[load]
    folders = (tmp_path / str(number) for number in range(100))
    errors: list[ClientError] = []

    def measure(requests: list[Request], loop: Loop) -> None:
        folder = next(folders)
        errors.append(calibrate(requests, loop, Process(), num_instances=2, load_s=LOAD_S, folder=folder))

    benchmark.pedantic(measure, (asked, loop), rounds=3)  # type: ignore[no-untyped-call]
    for name in ("ttft", "itl"):
        benchmark.extra_info[f"{name} error ms, mean and p99"] = [_in_ms(getattr(error, name)) for error in errors]
    benchmark.extra_info["latest send ms"] = [round(1e3 * error.max_send_delay_s, 2) for error in errors]
    benchmark.extra_info["streams, tokens/s"] = [(error.num_streams, round(error.tokens_per_s)) for error in errors]
    rates = [(error.asked_per_s, error.delivered_per_s) for error in errors]
    benchmark.extra_info["requests/s asked, delivered"] = rates


def _in_ms(error: StatisticError) -> list[float | None]:
    return [None if seconds is None else round(1e3 * seconds, 2) for seconds in (error.mean_s, error.p99_s)]
