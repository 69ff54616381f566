"""Compiled layers give the tokens of those that are not, and everything that speaks against them is said first.

Compiled here are graphs of torch's own operations: what a C++ compiler makes of them takes a minute for each model.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from functools import partial

import pytest
import torch

import tetribench.engine.hf.compiled as compiled
from tests.engine.hf.driver import Driver, tiny_engine
from tetribench.engine.hf.attention.hook import ATTENTION_NAME, paged_attention
from tetribench.engine.hf.schema import HFEngine, Linear
from tetribench.engine.model import Model


@pytest.fixture
def _without_a_cpp_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from transformers import AttentionInterface

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    AttentionInterface.register(ATTENTION_NAME, paged_attention)
    torch.compiler.reset()


@pytest.mark.usefixtures("_without_a_cpp_compiler")
def test_tokens_are_those_of_generate(
    model: Model, reference: Callable[[SequenceOf[int], int], list[int]], make_driver: Callable[[HFEngine], Driver]
) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    engine = tiny_engine(model)
    engine.compile_layers = True
    driver = make_driver(engine)
    info = driver.runner.info
    assert (info.has_compiled_layers, info.linear) == (True, "torch")
    assert counters["frames"]["ok"] > 0
    prompts = [list(range(3, 3 + length)) for length in (1, 40, 7)]
    sequences = [driver.sequence(i, prompt, 12) for i, prompt in enumerate(prompts)]
    assert driver.finish(sequences, 16, 3) == [reference(prompt, 12) for prompt in prompts]


def test_packed_weights_are_refused(model: Model) -> None:
    engine = tiny_engine(model)
    engine.compile_layers, engine.linear = True, Linear.native
    words = (
        r"^engine.linear=native: torch.compile cannot look into it \(engine.compile_layers=true\); legal here are auto"
    )
    with pytest.raises(ValueError, match=words):
        engine.sized(1)


def test_several_ranks_are_refused(model: Model) -> None:
    engine = tiny_engine(model)
    engine.compile_layers, engine.tensor_parallel = True, 2
    with pytest.raises(ValueError, match=r"^engine.compile_layers=true: is not for several ranks .*; must be false$"):
        engine.sized(1)


def test_a_cpu_needs_a_compiler(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert compiled.why_not_compiled(is_cuda=True) is None, "Triton's is there"
    engine = tiny_engine(model)
    engine.compile_layers = True
    words = r"^engine.compile_layers=true: finds no C\+\+ compiler: none of g\+\+, clang\+\+ .*; must be false$"
    with pytest.raises(ValueError, match=words):
        engine.sized(1)
    monkeypatch.setenv("CXX", "mine")
    assert compiled.why_not_compiled(is_cuda=False) is None
