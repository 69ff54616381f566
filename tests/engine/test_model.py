import json
from pathlib import Path
from typing import Any

import pytest

from tetribench.engine.model import Architecture, Model, ModelShape, shape_of_config

OPT_13B: dict[str, Any] = {
    "num_layers": 40, "hidden_size": 5120, "ffn_size": 20480, "num_heads": 40, "num_kv_heads": 40, "vocab_size": 50272
}  # fmt: skip
LLAMA_CONFIG = {
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 100,
    "vocab_size": 500,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def test_opt_13b_has_the_papers_kv_and_the_models_parameters() -> None:
    shape = Model(name="opt_13b", **OPT_13B).shape()
    assert shape.kv_bytes_per_token(2) == 819_200
    assert shape.num_parameters == pytest.approx(12.85e9, rel=0.01)
    assert shape.head_size == 128


def test_parameters_by_hand() -> None:
    """Tiny: attention 4 * 4 * (2 + 2 * heads), feed-forward 2 or 3 matrices of 4 * 8, embeddings tied (OPT) or not."""
    sizes: dict[str, Any] = {"num_layers": 2, "hidden_size": 4, "ffn_size": 8, "num_heads": 2, "vocab_size": 10}
    opt = Model(name="a", num_kv_heads=2, max_context_tokens=6, **sizes)
    assert opt.shape().num_parameters == (10 + 6) * 4 + 2 * (4 * 16 + 2 * 32)
    llama = Model(name="b", architecture=Architecture.llama, num_kv_heads=1, **sizes)
    assert llama.shape().num_parameters == 2 * 10 * 4 + 2 * (3 * 16 + 3 * 32)
    assert llama.shape().kv_bytes_per_token(4) == 2 * 2 * 1 * 2 * 4


@pytest.mark.parametrize("sizes", [{"num_heads": 3, "num_kv_heads": 3}, {"num_heads": 4, "num_kv_heads": 3}])
def test_heads_that_do_not_divide_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model.num_heads=\d: must divide model.hidden_size=256"):
        Model(name="x", **sizes)


def test_the_shape_of_a_config_with_grouped_heads_and_gates() -> None:
    assert shape_of_config(LLAMA_CONFIG) == ModelShape(
        num_layers=3,
        hidden_size=64,
        ffn_size=100,
        num_heads=8,
        num_kv_heads=2,
        head_size=8,
        vocab_size=500,
        max_context_tokens=256,
        num_parameters=2 * 500 * 64 + 3 * (2 * 64 * 8 * (8 + 2) + 3 * 64 * 100),
    )


def test_the_shape_of_a_config_without_gates_and_with_tied_embeddings() -> None:
    config = {
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_hidden_layers": 3,
        "ffn_dim": 100,
        "vocab_size": 500,
        "max_position_embeddings": 256,
        "head_dim": 16,
    }
    shape = shape_of_config(config)
    assert (shape.num_kv_heads, shape.head_size, shape.ffn_size) == (8, 16, 100)
    assert shape.num_parameters == 500 * 64 + 3 * (2 * 64 * 16 * 16 + 2 * 64 * 100)


def test_a_local_config_counts_more_than_the_sizes_given(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    model = Model(name="local", path=str(tmp_path), num_layers=99)
    assert model.shape() == shape_of_config(LLAMA_CONFIG)
    assert model.location() == str(tmp_path) and not model.is_random


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.path=.*there is no config.json in this directory"):
        Model(name="local", path=str(tmp_path)).shape()


def test_a_place_that_is_no_place_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"^model.path=no-such/model: neither a directory nor a hub id[^\n]*$"):
        Model(name="x", path="no-such/model").shape()


def test_weights_in_a_package() -> None:
    model = Model(name="x", package="json")
    assert Path(model.location()) == Path(json.__file__).parent and not model.is_random
    with pytest.raises(ValueError, match=r"model=smollm2: .* package no-such-package, which is not installed"):
        Model(name="smollm2", package="no_such_package").location()


def test_without_weights_they_are_random() -> None:
    assert Model(name="x").is_random


def test_the_shape_of_gpt_2_by_its_own_names() -> None:
    """124 million parameters (Radford et al. 2019): its feed-forward has two matrices of 4 * 768 and no gate."""
    config = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257, "n_inner": None}
    shape = shape_of_config(config)
    assert (shape.num_layers, shape.hidden_size, shape.ffn_size, shape.head_size) == (12, 768, 3072, 64)
    assert (shape.max_context_tokens, shape.vocab_size) == (1024, 50257)
    assert shape.num_parameters == pytest.approx(124e6, rel=0.03)


def test_a_config_that_names_no_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.path: its config.json has no hidden_size, max_position_embeddings"):
        shape_of_config({"num_attention_heads": 8, "num_hidden_layers": 3, "vocab_size": 500})
