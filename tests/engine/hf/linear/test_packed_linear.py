"""Packed linear layers compute what torch's do, in every layer of a model."""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf

import pytest
import torch
from torch import nn

import tetribench.engine.hf.linear.operators as operators
import tetribench.engine.hf.schema as schema
from tests.engine.hf.driver import Driver, tiny_engine
from tests.support.registers import REGISTERS, recompiled
from tetribench.engine.hf.linear.layer import PackedLinear, pack_linear_layers
from tetribench.engine.hf.models import load_model
from tetribench.engine.hf.schema import Device, DType, HFEngine, Linear
from tetribench.engine.model import Model
from tetribench.engine.native.compiler import find_compiler

NEEDS_COMPILER = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")


@pytest.fixture(scope="module", params=REGISTERS)
def registers(request: pytest.FixtureRequest) -> Iterator[None]:
    with recompiled(request.param, operators, operators.library, operators):
        yield


@NEEDS_COMPILER
@pytest.mark.usefixtures("registers")
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("outputs", [1, 64, 100])
@pytest.mark.parametrize("sizes", [(1, 1, 64), (1, 2, 40), (3, 5, 7), (300, 64), (40, 9000), (2, 70000)])
@torch.inference_mode()
def test_it_computes_what_the_whole_did(sizes: tuple[int, ...], outputs: int, has_bias: bool) -> None:
    """Some have more rows than fit a tile, some more inputs than are kept in the cache."""
    torch.manual_seed(0)
    whole, inputs = nn.Linear(sizes[-1], outputs, bias=has_bias), torch.randn(sizes)
    found = PackedLinear(whole)(inputs)
    torch.testing.assert_close(found, whole(inputs), atol=1e-4, rtol=1e-4)


@NEEDS_COMPILER
@pytest.mark.usefixtures("registers")
@pytest.mark.parametrize("rows", range(1, 26))
@torch.inference_mode()
def test_any_number_of_rows_is_computed_and_no_more(rows: int) -> None:
    torch.manual_seed(0)
    whole, inputs, out = nn.Linear(33, 70), torch.randn(rows, 33), torch.full((rows + 1, 70), 7.0)
    panels, bias = operators.in_panels(whole.weight), operators.in_panels(whole.bias)
    operators.linear(inputs, panels, bias, out[:rows])
    torch.testing.assert_close(out[:rows], whole(inputs), atol=1e-5, rtol=1e-5)
    assert (out[rows] == 7).all()


@NEEDS_COMPILER
@torch.inference_mode()
def test_inputs_may_lie_anyhow() -> None:
    whole, inputs = nn.Linear(64, 100), torch.randn(64, 5).t()
    torch.testing.assert_close(PackedLinear(whole)(inputs), whole(inputs), atol=1e-5, rtol=1e-5)


@NEEDS_COMPILER
def test_every_layer_is_packed(model: Model) -> None:
    loaded = load_model(model, torch.device("cpu"), torch.float32, seed=0)
    num_linear = sum(isinstance(module, nn.Linear) for module in loaded.modules())
    pack_linear_layers(loaded)
    kinds = [type(module) for module in loaded.modules()]
    assert kinds.count(PackedLinear) == num_linear > 0 and nn.Linear not in kinds


@pytest.mark.parametrize("linear", [Linear.torch, pytest.param(Linear.native, marks=NEEDS_COMPILER)])
def test_tokens_are_those_of_generate(
    model: Model,
    linear: Linear,
    reference: Callable[[SequenceOf[int], int], list[int]],
    make_driver: Callable[[HFEngine], Driver],
) -> None:
    engine = tiny_engine(model)
    engine.linear = linear
    driver = make_driver(engine)
    assert driver.runner.info.linear == linear.value
    prompts = [list(range(3, 3 + length)) for length in (1, 40, 7)]
    sequences = [driver.sequence(i, prompt, 12) for i, prompt in enumerate(prompts)]
    assert driver.finish(sequences, 16, 0) == [reference(prompt, 12) for prompt in prompts]


def refused(engine: HFEngine, reason: str) -> None:
    assert engine.resolved_linear() is Linear.torch
    engine.linear = Linear.native
    with pytest.raises(ValueError, match=f"^engine.linear=native: {reason}; legal here are auto and torch$"):
        engine.sized(1)


@NEEDS_COMPILER
def test_auto_is_native_for_float32_on_the_cpu_alone(model: Model) -> None:
    assert HFEngine(model=model, device=Device.cpu).resolved_linear() is Linear.native
    refused(HFEngine(model=model, device=Device.cpu, dtype=DType.bfloat16), "is for float32 on the CPU")


def test_a_machine_without_a_compiler_says_so(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "why_no_compiler", lambda: "finds no C compiler")
    refused(HFEngine(model=model, device=Device.cpu), "finds no C compiler")
