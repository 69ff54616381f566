from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.engine.hf.driver import MODELS, Driver, generate, tiny_engine
from tetribench.engine.hf.attention.hook import ATTENTION_NAME
from tetribench.engine.hf.models import load_model, stop_token_ids
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.model import Model

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 256,
    "max_position_embeddings": 256,
}


def load(model: Model, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    return load_model(model, CPU, dtype, seed)


def test_a_seed_is_a_model(model: Model) -> None:
    one, same, other = load(model), load(model), load(model, seed=1)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
    assert any(not torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_half_precision_rounds_the_same_weights_and_nothing_else(model: Model) -> None:
    full, half = load(model), load(model, torch.bfloat16)
    for name, weight in half.named_parameters():
        assert torch.equal(weight, full.get_parameter(name).to(torch.bfloat16))
    for name, buffer in half.named_buffers():
        assert torch.equal(buffer, full.get_buffer(name)), "rotary frequencies stay exact"
    tied = half.get_input_embeddings().weight is half.get_parameter("lm_head.weight")
    assert tied == (model is MODELS["opt"])


def test_it_runs_the_paged_attention_and_never_stops_by_itself(model: Model) -> None:
    loaded = load(model)
    assert loaded.config._attn_implementation == ATTENTION_NAME
    assert not loaded.training
    assert stop_token_ids(model, loaded) == ()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A family without a config of its own here: normalised queries and keys, and a head size of its own."""
    folder = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32, initializer_range=0.2, eos_token_id=[7, 9])
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return Model(name="qwen3", path=str(folder))


def test_a_checkpoint_gives_the_tokens_of_generate(
    checkpoint: Model, make_driver: Callable[[HFEngine], Driver], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    driver = make_driver(tiny_engine(checkpoint))
    assert capfd.readouterr() == ("", "")
    prompts = [list(range(50)), [3, 1, 4, 1, 5]]
    outputs = driver.finish([driver.sequence(i, prompt, 16) for i, prompt in enumerate(prompts)], 16)
    original = AutoModelForCausalLM.from_pretrained(checkpoint.location(), dtype=torch.float32)
    assert outputs == [generate(original, prompt, 16) for prompt in prompts]
    assert driver.runner.info.stop_token_ids == (7, 9)


def test_a_checkpoint_of_another_shape_is_refused(checkpoint: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Model(name="wrong", path=checkpoint.path)
    monkeypatch.setattr(wrong, "shape", MODELS["opt"].shape)
    with pytest.raises(ValueError, match=r"^model=wrong: declares .* = \(2, 4, 16\), its files have \(2, 2, 32\)$"):
        load(wrong)


def test_sliding_windows_are_refused(tmp_path: Path) -> None:
    MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=32)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^model=m: sliding-window attention is not implemented$"):
        load(Model(name="m", path=str(tmp_path)))


def test_a_family_outside_the_interface_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where its name is not on the list."""
    monkeypatch.setattr("tetribench.engine.hf.supported._REFUSED_FAMILIES", {})
    config = FalconConfig(vocab_size=256, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    FalconForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^model=m: its attention does not go through"):
        load(Model(name="m", path=str(tmp_path)))
