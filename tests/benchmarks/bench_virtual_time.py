"""How many requests virtual time serves in a second of wall time: `make bench` prints it as extra_info."""

import io
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from tetribench.composition import Composition
from tetribench.conf_files import conf_folder
from tetribench.config import register
from tetribench.experiment import run

NUM_REQUESTS = 500


def test_requests_per_second(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Mixed lengths, Poisson 5/s, two prefill and two decode instances against four colocated ones."""
    register()
    overrides = [
        "+workload=mixed",
        "arrivals@workload.arrivals=poisson",
        "workload.request_rate=5",
        f"workload.num_requests={NUM_REQUESTS}",
        "runtime=sim",
        "model=opt_13b",
        "hardware=v100_tp2",
        "system.tetri.num_prefill=2",
        "system.tetri.num_decode=2",
        "system.vllm_like.num_instances=4",
        "progress=false",
        f"out={tmp_path}",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", overrides)
    serve = partial(run, Composition(config, "").setup(), Console(file=io.StringIO()))
    benchmark.pedantic(serve, rounds=3)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    benchmark.extra_info["requests_per_s"] = round(2 * NUM_REQUESTS / benchmark.stats.stats.median)
