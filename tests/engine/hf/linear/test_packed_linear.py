"""Packed linear layers compute what torch's do, in every layer of a model."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import pytest
import torch
from torch import nn

from tests.engine.hf.driver import Driver, tiny_engine
from tetribench.engine.hf.linear import PackedLinear, pack_linear_layers
from tetribench.engine.hf.models import load_model
from tetribench.engine.hf.schema import Device, DType, HFEngine, Linear
from tetribench.engine.model import Model


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 64), (1, 7, 64), (300, 64)])
@torch.inference_mode()
def test_it_computes_what_the_whole_did(sizes: tuple[int, ...], has_bias: bool) -> None:
    torch.manual_seed(0)
    whole, inputs = nn.Linear(64, 100, bias=has_bias), torch.randn(sizes)
    expected = whole(inputs)
    found = PackedLinear(whole)(inputs)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_every_layer_is_packed(model: Model) -> None:
    loaded = load_model(model, torch.device("cpu"), torch.float32, seed=0)
    num_linear = sum(isinstance(module, nn.Linear) for module in loaded.modules())
    pack_linear_layers(loaded)
    kinds = [type(module) for module in loaded.modules()]
    assert kinds.count(PackedLinear) == num_linear > 0 and nn.Linear not in kinds


@pytest.mark.parametrize("linear", [Linear.torch, Linear.onednn])
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


def test_auto_is_onednn_for_float32_on_the_cpu_alone(model: Model) -> None:
    assert HFEngine(model=model, device=Device.cpu).resolved_linear() is Linear.onednn
    half = HFEngine(model=model, device=Device.cpu, dtype=DType.bfloat16)
    assert half.resolved_linear() is Linear.torch
    half.linear = Linear.onednn
    words = r"^engine.linear=onednn: is for float32 on the CPU; legal here are auto and torch$"
    with pytest.raises(ValueError, match=words):
        half.sized(1)


def test_a_torch_without_onednn_says_so(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    loaded = load_model(model, torch.device("cpu"), torch.float32, seed=0)
    with pytest.raises(ValueError, match=r"^engine.linear=onednn: this torch comes without it; legal here is torch$"):
        pack_linear_layers(loaded)
