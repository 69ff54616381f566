"""Our engine beside vLLM's: the same batches, on the same core, in turns.

`make peers` makes vLLM's environment; without it the rows are said not to have been run. A ratio is of rates: above 1
our engine is the faster one. A round measures both, A B B A; the median and the range are of the rounds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest
from hydra import compose, initialize_config_dir
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.offline.cases import CASES, Case
from tests.peers import NO_VLLM, VLLM_PYTHON
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.engine.hf.export import export
from tetribench.engine.hf.schema import HFEngine

NUM_ROUNDS = 5
OFFLINE = Path(__file__).parent / "offline"
ROOT = Path(__file__).parents[2]
Rate = Callable[[Case], float]


@contextmanager
def engine(command: list[str], log: Path) -> Iterator[Rate]:
    """An engine in a process of its own, as a function from a case to tokens per second."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        requests, replies = process.stdin, process.stdout

        def reply() -> object:
            line = replies.readline()
            if not line:
                raise RuntimeError(f"{command[1]} ended:\n{log.read_text()[-2000:]}")
            return json.loads(line)

        def rate(case: Case) -> float:
            seconds = []
            for work in case.works():
                print(json.dumps(work), file=requests, flush=True)
                seconds.append(float(str(reply())))
            return case.num_tokens / (seconds[0] - sum(seconds[1:]))

        reply()
        try:
            yield rate
        finally:
            requests.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The weights that our engine has, as peers read them."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def saved(model: str) -> Path:
        if not (folder / model).is_dir():
            register()
            with initialize_config_dir(str(conf_folder()), version_base="1.3"):
                engine = Composition(compose("config", ["+workload=lpld", f"model={model}"]), "").setup().engine
            assert isinstance(engine, HFEngine)
            export(engine, folder / model)
        return folder / model

    return saved


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tokens_per_second(
    case: Case,
    checkpoint: Callable[[str], Path],
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not VLLM_PYTHON.is_file():
        pytest.skip(NO_VLLM)
    budget = str(case.budget)
    theirs = [str(VLLM_PYTHON), str(OFFLINE / "vllm_engine.py"), str(checkpoint(case.model)), budget]
    ours = [sys.executable, str(OFFLINE / "own.py"), case.model, budget]
    ratios, rates = [], []
    with engine(ours, tmp_path / "own.log") as own, engine(theirs, tmp_path / "peer.log") as other:
        own(case), other(case)  # whatever is done once

        def one_round() -> None:
            first = own(case), other(case)
            second = other(case), own(case)
            pair = (first[0] + second[1]) / 2, (first[1] + second[0]) / 2
            rates.append(pair)
            ratios.append(pair[0] / pair[1])

        benchmark.pedantic(one_round, rounds=NUM_ROUNDS)  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"ratios": ratios, "tokens/s, own and vLLM": rates}
    with capsys.disabled():
        own_rate, peer_rate = (median(each) for each in zip(*rates, strict=True))
        print(
            f"\n{case.name}: {own_rate:,.0f} tokens/s, vLLM {peer_rate:,.0f}; "
            f"ratio {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
