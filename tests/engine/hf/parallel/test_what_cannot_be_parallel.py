"""What ranks cannot do is refused in one line, before any of them is started."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.hf.driver import MODELS
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.engine.sharing import Sharing
from tetribench.kv.links import Medium, Memory
from tetribench.kv.links.nixl import Nixl
from tetribench.kv.links.shared_memory import SharedMemory
from tetribench.kv.links.tcp import Tcp

SIZES: dict[str, Any] = {
    "num_layers": 1, "hidden_size": 96, "ffn_size": 96, "num_heads": 6, "num_kv_heads": 6, "vocab_size": 64,
}  # fmt: skip


def parallel(num_ranks: int, **sizes: int) -> HFEngine:
    return HFEngine(model=Model(name="mine", **(SIZES | sizes)), device=Device.cpu, tensor_parallel=num_ranks)


@pytest.mark.parametrize(
    ("num_ranks", "sizes", "message"),
    [
        (4, {}, "must divide the 6 heads of model=mine"),
        (3, {"num_kv_heads": 2}, "must divide the 2 KV heads of model=mine"),
        (3, {"ffn_size": 64}, "must divide the 64 feed-forward values of model=mine"),
    ],
)
def test_shares_are_equal_or_refused(num_ranks: int, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^engine.tensor_parallel={num_ranks}: {message}$"):
        parallel(num_ranks, **sizes).sized(1)
    parallel(2, **sizes).sized(1)


def test_less_than_one_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^engine.tensor_parallel=0: must be at least 1$"):
        parallel(0)


def test_a_family_whose_layers_have_other_names_is_refused(tmp_path: Path) -> None:
    config: dict[str, Any] = {"model_type": "phi3", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 64}
    sizes = {"num_hidden_layers": 1, "intermediate_size": 64, "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    engine = HFEngine(model=Model(name="mine", path=str(tmp_path)), device=Device.cpu, tensor_parallel=2)
    with pytest.raises(ValueError, match=r"tensor_parallel=2: cuts models of opt and llama only, not phi3; must be 1$"):
        engine.sized(1)


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HFEngine, "resolved_device", lambda engine: Device.cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"^engine.tensor_parallel=2: this machine has 1 GPU\(s\); must be at most"):
        HFEngine(model=MODELS["opt"], tensor_parallel=2).sized(1)


def test_ranks_have_the_memory_of_their_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two instances of two ranks need four GPUs."""
    monkeypatch.setattr(HFEngine, "resolved_device", lambda engine: Device.cuda)
    properties = type("Properties", (), {"total_memory": 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    engine = HFEngine(model=MODELS["opt"], tensor_parallel=2)
    assert engine.sized(2).kv_memory_gib == pytest.approx(2 * 0.9, abs=0.01)
    with pytest.raises(ValueError, match=r"^device=cuda: instances on 6 GPUs, and this machine has 4; must be fewer"):
        engine.sized(3)


def test_an_instance_of_ranks_shares_no_device() -> None:
    with pytest.raises(
        ValueError, match=r"^system.tetri.sharing=time_slicing: .*tensor_parallel=2 has several devices"
    ):
        parallel(2).shared(2, Sharing.time_slicing)


@pytest.mark.parametrize("medium", [Memory(), SharedMemory(), Tcp()])
def test_links_that_copy_serve_parts(medium: Medium) -> None:
    medium.check(in_parts=parallel(2).has_parts)


def test_a_link_that_needs_memory_in_one_piece_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    Nixl().check(in_parts=parallel(1).has_parts)
    with pytest.raises(ValueError, match=r"^kv/link=nixl: .* must be memory, shared_memory or tcp$"):
        Nixl().check(in_parts=parallel(2).has_parts)
