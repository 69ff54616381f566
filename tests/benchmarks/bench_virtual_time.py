"""How many requests virtual time serves in a second of one core, and how long it takes to read and measure a log.

`make bench` prints both, for each system. Azure conversation lengths up to 4,096 tokens in total (their quantiles,
where the trace is not there), Poisson 5/s, two prefill and two decode instances, or four colocated ones. The simulation
is timed with its event log; what is read is a log as real time writes it, an event for each iteration and delivery.

Of a whole `runtime=sim` of 5,000 requests on `tetri`, in CPU seconds: 2.8 serving (0.13 of it encoding and writing
events, 0.1 composing the run), 0.7 reading and measuring, 1.2 figures, page and Parquet.

What was tried on the serving, and what came of it in alternating rounds, with logs and tables the same to the byte:

- Slowness of jobs on a device once for each change: 1.04 times as fast. Messages told apart by class alone: 1.02.
  `num_computed` for prompt and response: 1.01, within the spread. Heavy decodes kept, not counted: 1.01, likewise.
- Members of a running batch told of many iterations only when looked at, because reports ask for free memory alone:
  expected 1.03, was 0.97. Counting who takes a block when costs more than giving the tokens; left out.
- A lighter `asyncio.Event` for the instance loop: expected 1.01, could not be told from the spread; left out.
- Not frozen messages and chunks: at most 2 us of 520 for each request (0.4 %); not done.
- Load reports on an idle system take 0.2 of 2.65 s, garbage collection 0.01, seeding predictions 2 %. The rest is
  even: no function has more than 5 % of the time by itself.
"""

import csv
import gzip
import io
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.core.garbage import rarely_collected
from tetribench.engine.cost_engine import CostModelEngine
from tetribench.experiment import run
from tetribench.metrics.compare import measure
from tetribench.metrics.log import read_columns

NUM_REQUESTS = 5000
NUM_MEASURED = 2000
MAX_TOKENS = 4096
TRACE = Path("shared/data/azure-llm-2023/AzureLLMInferenceTrace_conv.csv.gz")
PROMPT_QUANTILES, OUTPUT_QUANTILES = (2, 396, 1020, 1189, 4095), (7, 85, 129, 395, 1000)
"""Of the same trace, at 0, 25, 50, 75 and 100 %."""


def lengths() -> Iterator[tuple[int, int]]:
    trace = Path(__file__).parents[3] / TRACE
    if trace.is_file():
        with gzip.open(trace, "rt") as file:
            for row in csv.DictReader(file):
                yield int(row["ContextTokens"]), int(row["GeneratedTokens"])
    rng = random.Random(1)
    while True:
        yield _drawn(rng, PROMPT_QUANTILES), _drawn(rng, OUTPUT_QUANTILES)


def _drawn(rng: random.Random, quantiles: tuple[int, ...]) -> int:
    quarter = rng.randrange(len(quantiles) - 1)
    return rng.randint(quantiles[quarter], quantiles[quarter + 1])


def write_trace(path: Path, num_requests: int, rate_per_s: float) -> None:
    rng, time_s = random.Random(0), 0.0
    with path.open("w") as file:
        file.write("arrival_s,prompt_tokens,output_tokens\n")
        for (prompt, output), _ in zip(lengths(), range(num_requests), strict=False):
            prompt = min(prompt, MAX_TOKENS - 1)
            file.write(f"{time_s!r},{prompt},{max(min(output, MAX_TOKENS - prompt), 1)}\n")
            time_s += rng.expovariate(rate_per_s)


def composed(system: str, num_requests: int, out: Path) -> Composition:
    """llama_8b on v100_tp2, which carries this load: its prefill instances compute for half of the time."""
    register()
    write_trace(out / "trace.csv", num_requests, 5.0)
    overrides = [
        "+workload=trace",
        f"workload.path={out / 'trace.csv'}",
        "runtime=sim",
        "engine=cost_model",
        "model=llama_8b",
        "hardware=v100_tp2",
        "kv/speed=ts_nvlink",
        "system.tetri.num_prefill=2",
        "system.tetri.num_decode=2",
        "system.vllm_like.num_instances=4",
        f"systems=[{system}]",
        "progress=false",
        f"out={out}",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return Composition(compose("config", overrides), "")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("system", ["tetri", "vllm_like"])
def test_requests_per_second(
    system: str, benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = partial(run, composed(system, NUM_REQUESTS, tmp_path), Console(file=io.StringIO()))
    benchmark.pedantic(serve, rounds=3)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    with capsys.disabled():
        print(f"\n{system}: {NUM_REQUESTS / benchmark.stats.stats.median:,.0f} simulated requests per CPU second")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("system", ["tetri", "vllm_like"])
def test_reading_and_measuring(
    system: str, benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = composed(system, NUM_MEASURED, tmp_path)
    with mock.patch.object(CostModelEngine, "foresee", lambda *_: None):
        (log,) = run(asked, Console(file=io.StringIO())).rglob("events.jsonl")
    slo = asked.setup().slo

    def measured() -> int:
        with rarely_collected():
            return measure(system, read_columns(log), slo).accounting.submitted

    assert benchmark.pedantic(measured, rounds=5) == NUM_MEASURED  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    seconds, num_events = benchmark.stats.stats.median, log.read_bytes().count(b"\n")
    with capsys.disabled():
        print(f"\n{system}: {seconds:.2f} CPU seconds to measure {NUM_MEASURED:,} requests, {num_events:,} events")
