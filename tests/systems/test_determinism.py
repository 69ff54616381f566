import hashlib
import random
import subprocess
import sys

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tests.support.interpreter import environment
from tetribench.control.route import RoundRobin
from tetribench.decode.admit import ReserveDynamic
from tetribench.metrics.log import encode_event
from tetribench.prefill.dispatch import RandomDispatch
from tetribench.prefill.order import SJF
from tetribench.prefill.predict import NoisyOracle
from tetribench.systems.base import System

COLOCATED = {"vllm_like": vllm_like, "sarathi_like": sarathi_like}
NAMES = ("tetri", "tetri_random", *COLOCATED)


def system(name: str, seed: int = 0) -> System:
    if name in COLOCATED:
        return COLOCATED[name](2)
    return tetri(
        num_prefill=2,
        num_decode=3,
        seed=seed,
        order=SJF(),
        predict=NoisyOracle(granularity=10),
        admit=ReserveDynamic(),
        route=RoundRobin(),
        **({"dispatch": RandomDispatch()} if name == "tetri_random" else {}),
    )


def digest(served_by: System) -> str:
    """Of every byte of the event log, on memory so small that sequences are preempted."""
    rng = random.Random(1)
    requests = [request(id, rng.randint(1, 80), rng.randint(1, 40), id * 0.003) for id in range(60)]
    bench = Bench(served_by, CheckingFactory(num_blocks=12)).run(requests)
    return hashlib.sha256(b"".join(encode_event(event) for event in bench.log.events)).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_bytes_again(name: str) -> None:
    assert digest(system(name)) == digest(system(name))


@pytest.mark.parametrize("name", ["tetri", "tetri_random"])
def test_another_seed_gives_other_bytes(name: str) -> None:
    assert digest(system(name, seed=0)) != digest(system(name, seed=1))


def test_a_system_that_has_served_serves_the_same_way_again() -> None:
    """Seven requests over two instances by round robin: the second run must begin with the first instance again."""
    once = tetri(num_prefill=2, route=RoundRobin())
    requests = [request(id) for id in range(7)]
    runs = [Bench(once, CheckingFactory()).run(requests) for _ in range(2)]
    first, second = ([encode_event(event) for event in bench.log.events] for bench in runs)
    assert first == second


def test_fresh_processes_with_other_hash_seeds_give_the_same_bytes() -> None:
    code = (
        "from tests.systems.test_determinism import NAMES, digest, system\n"
        "print(*(digest(system(name)) for name in NAMES))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env=environment(hash_seed), capture_output=True, text=True, check=True
        ).stdout.strip()
        for hash_seed in (0, 1, 42)
    }
    assert outputs == {" ".join(digest(system(name)) for name in NAMES)}
