"""Our stand-in for vLLM beside vLLM itself: `vllm_like` over `vllm_server`, two instances each, one core for each.

A test is one run of one class of requests: both systems behind the same load generator, fresh for each round, and a
round's seed is its own. Open loop, Poisson, at a rate that both can carry on two slow cores.
"""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from tests.peers import NO_VLLM, VLLM_PYTHON
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.experiment import run
from tetribench.metrics.paired import ServingValues, serving_values
from tetribench.report.runs import load_run

OWN, PEER = "vllm_like", "vllm_server"
CLASSES = ("lpld", "lphd", "hpld", "hphd", "mixed")
METRICS = {"mean_ttft_s": "mean TTFT", "mean_jct_s": "mean JCT"}
NUM_ROUNDS = 2
NUM_REQUESTS = 24
PER_S = 2.0


def composed(workload: str, out: Path) -> Composition:
    register()
    overrides = [
        f"+workload={workload}",
        "arrivals@workload.arrivals=poisson",
        f"workload.request_rate={PER_S}",
        f"workload.num_requests={NUM_REQUESTS}",
        f"systems=[{OWN},{PEER}]",
        f"system.{PEER}.python={VLLM_PYTHON}",
        f"system.{PEER}.chunked_prefill=false",
        f"repeats={NUM_ROUNDS}",
        "aa_band=false",
        "progress=false",
        "validity=any_machine",
        f"out={out}",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return Composition(compose("config", overrides), "tetribench " + " ".join(overrides), overrides)


def ratios(values: list[ServingValues], metric: str) -> list[float]:
    """Of each repeat."""
    by_repeat: dict[int, dict[str, float]] = {}
    for one in values:
        by_repeat.setdefault(one.repeat, {})[one.system] = one.values[metric]
    return [each[OWN] / each[PEER] for each in by_repeat.values()]


@pytest.mark.parametrize("workload", CLASSES)
def test_stand_in(workload: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    if not VLLM_PYTHON.is_file():
        pytest.skip(NO_VLLM)
    folder = benchmark.pedantic(run, (composed(workload, tmp_path), Console(quiet=True)), rounds=1)  # type: ignore[no-untyped-call]
    finished = load_run(folder)
    values = serving_values(finished.served, PEER)
    benchmark.extra_info["marks"] = [
        {"row": f"end to end, {workload}, {words}", "rounds": ratios(values, metric)}
        for metric, words in METRICS.items()
    ]
    benchmark.extra_info["servings"] = [(one.system, *(one.values[metric] for metric in METRICS)) for one in values]
    benchmark.extra_info["INVALID"] = finished.validity.codes
