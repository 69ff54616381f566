"""Engines of the tests in this folder, built once."""

import asyncio
import os
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver, generate, tiny_engine
from tetribench.core.clock import WallClock
from tetribench.engine.base import Engine
from tetribench.engine.hf.models import load_model
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.model import Model


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def make_driver(loop: asyncio.Runner) -> Iterator[Callable[[HFEngine], Driver]]:
    """Builds an engine and its driver; all are closed in the end."""
    built: list[Engine] = []

    def build(engine: HFEngine) -> Driver:
        built.append(engine.build(WallClock(), None))
        return Driver(built[-1], loop)

    yield build
    for runner in built:
        runner.close()


@pytest.fixture(scope="session", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    found: Model = MODELS[request.param]
    return found


@pytest.fixture(scope="session")
def driver(model: Model, make_driver: Callable[[HFEngine], Driver]) -> Driver:
    return make_driver(tiny_engine(model))


@pytest.fixture(scope="session")
def reference(model: Model) -> Callable[[SequenceOf[int], int], list[int]]:
    """Greedy tokens of transformers' own attention and cache, on weights drawn from the same seed."""
    loaded = load_model(model, torch.device("cpu"), torch.float32, seed=0)
    loaded.set_attn_implementation("sdpa")
    return lambda prompt, num_new: generate(loaded, prompt, num_new)
