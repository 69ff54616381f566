import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tetribench.engine.hf.schema as schema
import tetribench.engine.host_memory as host_memory
from tests.engine.hf.driver import MODELS
from tetribench.core.units import GIB
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.schema import Device, DType, HFEngine
from tetribench.engine.model import Architecture, Model
from tetribench.engine.sharing import MPS_CONTROL, Sharing

OPT = MODELS["opt"]
LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
    "max_position_embeddings": 512,
}


def at_path(folder: Path, **changes: Any) -> Model:
    (folder / "config.json").write_text(json.dumps(LLAMA_CONFIG | changes))
    return Model(name="mine", path=str(folder))


@pytest.mark.parametrize(
    "values",
    [
        {"block_size": 0},
        {"kv_memory_gib": 0.0},
        {"host_memory_gib": -1.0},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": 0},
        {"graph_sequences": -1},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ValueError, match=f"^engine.{name}=.*") as refused:
        HFEngine(model=OPT, **values)
    assert "\n" not in str(refused.value)


def test_a_sane_engine_is_accepted(tmp_path: Path) -> None:
    HFEngine(model=OPT, device=Device.cpu).sized(2)
    HFEngine(model=at_path(tmp_path), device=Device.cpu).sized(2)


@pytest.mark.parametrize("other", [{"temperature": 0.5}, {"attention": Attention.flashinfer}])
def test_graphs_are_refused_where_they_cannot_be(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^engine.graph_sequences=8: .* must be 0 or null with"):
        HFEngine(model=OPT, graph_sequences=8, **other)
    HFEngine(model=OPT, graph_sequences=0, **other)


def test_graphs_are_for_gpus_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        attention: HFEngine(model=OPT, device=Device.cpu).resolved_graph_sequences(attention) for attention in Attention
    }
    assert {attention.value: number for attention, number in found.items() if number} == {"native": 64}
    for other in ({"temperature": 0.7}, {"tensor_parallel": 2}, {"compile_layers": True}):
        engine = HFEngine(model=OPT, device=Device.cpu, **other)
        assert engine.resolved_graph_sequences(Attention.native) == 0
    assert HFEngine(model=OPT, device=Device.cpu, graph_sequences=3).resolved_graph_sequences(Attention.sdpa) == 3
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    found = {attention: HFEngine(model=OPT).resolved_graph_sequences(attention) for attention in Attention}
    assert [a.value for a, number in found.items() if number] == ["auto", "triton", "fa3"]
    assert HFEngine(model=OPT, temperature=0.7).resolved_graph_sequences(Attention.triton) == 0


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_GPU_FILES", ("/nowhere",))
    with pytest.raises(ValueError, match=r"^device=cuda: no CUDA device"):
        HFEngine(model=OPT, device=Device.cuda).sized(1)
    assert HFEngine(model=OPT).resolved_device() is Device.cpu


def test_auto_takes_cuda_where_torch_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    assert HFEngine(model=OPT).resolved_device() is Device.cuda
    assert HFEngine(model=OPT).resolved_dtype() is DType.float16
    assert HFEngine(model=MODELS["llama"]).resolved_dtype() is DType.bfloat16
    assert HFEngine(model=OPT, dtype=DType.bfloat16).resolved_dtype() is DType.bfloat16
    assert HFEngine(model=OPT, device=Device.cpu).resolved_dtype() is DType.float32
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: False)
    assert HFEngine(model=OPT).resolved_device() is Device.cpu


def test_the_dtype_of_a_checkpoint_follows_its_own_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    model = at_path(tmp_path)
    assert model.architecture is Architecture.opt
    assert HFEngine(model=model).resolved_dtype() is DType.bfloat16
    assert HFEngine(model=at_path(tmp_path, model_type="opt")).resolved_dtype() is DType.float16


def test_blocks_fill_the_memory() -> None:
    engine = HFEngine(model=OPT, device=Device.cpu, kv_memory_gib=0.5, block_size=8)
    assert engine.kv_bytes_per_block() == 2 * 2 * 64 * 4 * 8
    assert engine.num_blocks() == 2**29 // engine.kv_bytes_per_block()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 GiB each."""
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=10 * GIB))


@pytest.mark.usefixtures("two_gpus")
def test_instances_on_a_gpu_have_what_their_weights_leave() -> None:
    half = Model(name="large", num_layers=1, hidden_size=8192, ffn_size=32768, num_heads=64, num_kv_heads=64)
    weights_gib = half.shape().num_parameters * 2 / GIB
    alone, two = (HFEngine(model=half).sized(2, num_sharing) for num_sharing in (1, 2))
    assert alone.kv_memory_gib == pytest.approx(9.0 - weights_gib)
    assert two.kv_memory_gib == pytest.approx(9.0 - 2 * weights_gib)
    assert two.num_blocks() // 2 == two.shared(2, Sharing.time_slicing).num_blocks()
    with pytest.raises(
        ValueError, match=r"^engine.kv_memory_gib=8: 4 instances on 2 GPU\(s\) leave .* to every 2 beside"
    ):
        HFEngine(model=half, kv_memory_gib=8).sized(2, 2)


@pytest.mark.usefixtures("two_gpus")
def test_more_gpus_than_there_are_is_refused() -> None:
    assert HFEngine(model=OPT).num_gpus == 2 and HFEngine(model=OPT, device=Device.cpu).num_gpus is None
    HFEngine(model=OPT, device=Device.cpu).sized(3)
    with pytest.raises(
        ValueError, match=r"^device=cuda: instances on 3 GPUs, and this machine has 2; must be "
    ) as refused:
        HFEngine(model=OPT).sized(3)
    assert "\n" not in str(refused.value) and "(system.tetri.sharing=time_slicing, mps, green_contexts)" in str(
        refused.value
    )


def test_memory_for_less_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^engine.kv_memory_gib=1e-06: holds no block"):
        HFEngine(model=OPT, device=Device.cpu, kv_memory_gib=1e-6).sized(1)


def test_more_memory_than_the_machine_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {2 * 2**20} kB\n")
    monkeypatch.setattr(host_memory, "_MEMINFO", meminfo)
    engine = HFEngine(model=OPT, device=Device.cpu, kv_memory_gib=0.9)
    engine.sized(2)
    with pytest.raises(ValueError, match=r"^engine.kv_memory_gib=0.9: 3 instances on this machine leave 0.666 GiB"):
        engine.sized(3)


def test_host_memory_is_there_for_those_that_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HFEngine(model=OPT, device=Device.cpu)
    assert (engine.num_host_blocks, engine.with_host_memory().num_host_blocks) == (0, 2**29 // (2 * 2 * 64 * 4 * 16))
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setattr(schema, "available_bytes", lambda: 5 * GIB)
    assert HFEngine(model=OPT).with_host_memory().num_host_blocks == 2**32 // (2 * 2 * 64 * 2 * 16)
    with pytest.raises(ValueError, match=r"^engine.host_memory_gib=6: this machine has 5 GiB available"):
        HFEngine(model=OPT, host_memory_gib=6).with_host_memory()
    with pytest.raises(ValueError, match=r"^engine.host_memory_gib=0: decode.preemption=swap needs at least one block"):
        HFEngine(model=OPT, host_memory_gib=0).with_host_memory()


def test_instances_on_one_cpu_core_have_half_of_the_memory_each() -> None:
    alone = HFEngine(model=OPT, device=Device.cpu).sized(2)
    part = alone.shared(2, Sharing.time_slicing)
    assert part.num_blocks() == alone.num_blocks() // 2 and alone.num_sharing == 1


def test_mps_is_refused_where_its_program_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = r"^system.tetri.sharing=mps: there is no program nvidia-cuda-mps-control here; must be none or time_slic"
    with pytest.raises(ValueError, match=refused):
        HFEngine(model=OPT).shared(2, Sharing.mps)
    (tmp_path / MPS_CONTROL).touch(mode=0o755)
    assert HFEngine(model=OPT).shared(2, Sharing.mps).num_sharing == 2


def test_green_contexts_are_of_a_gpu_and_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = r"^system.tetri.sharing=green_contexts: they are of NVIDIA's GPUs; must be none or time_slicing with devi"
    with pytest.raises(ValueError, match=refused):
        HFEngine(model=OPT, device=Device.cpu).shared(2, Sharing.green_contexts)
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setattr(schema, "is_installed", lambda: False)
    with pytest.raises(
        ValueError, match=r"package cuda-bindings is not installed .*must be none, time_slicing or mps$"
    ):
        HFEngine(model=OPT).shared(2, Sharing.green_contexts)
    with pytest.raises(ValueError, match=r"sharing=green_contexts: .* engine.tensor_parallel=2 has several devices"):
        HFEngine(model=OPT, tensor_parallel=2).shared(2, Sharing.green_contexts)


def test_a_gpu_is_divided_by_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_GPU_FILES", ("/proc",))
    monkeypatch.setattr(schema, "_torch_sees_cuda", lambda: True)
    monkeypatch.setattr(schema, "is_installed", lambda: True)
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    shared = HFEngine(model=OPT).shared(2, Sharing.green_contexts, 0.75)
    assert (shared.num_sharing, shared.num_first_multiprocessors) == (2, 96)
    assert [shared.in_part(part).part for part in (0, 1)] == [0, 1] and shared.part == 0
    with pytest.raises(
        ValueError, match=r"^system.tetri.prefill_share=0.06: is 0 of 132 .*at least 0.061 and below 0.97"
    ):
        HFEngine(model=OPT).shared(2, Sharing.green_contexts, 0.06)


def test_an_unsupported_checkpoint_is_refused_before_it_is_read(tmp_path: Path) -> None:
    model = at_path(tmp_path, model_type="mistral", sliding_window=128)
    with pytest.raises(ValueError, match=r"^model=mine: sliding-window attention is not implemented$"):
        HFEngine(model=model, device=Device.cpu).sized(1)


def test_a_family_with_other_words_for_its_sizes_is_refused_by_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gptj", "n_embd": 64}))
    with pytest.raises(ValueError, match="AttentionInterface"):
        HFEngine(model=Model(name="mine", path=str(tmp_path)), device=Device.cpu).sized(1)


def test_a_missing_package_is_named() -> None:
    model = Model(name="m", package="no_such_weights")
    with pytest.raises(ValueError, match="no-such-weights"):
        HFEngine(model=model, device=Device.cpu).sized(1)


def test_it_travels_to_another_process() -> None:
    engine = pickle.loads(pickle.dumps(HFEngine(model=OPT, device=Device.cpu, top_k=4)))
    assert (engine.model.name, engine.device, engine.top_k) == ("opt_tiny", Device.cpu, 4)
    assert engine.sized(1).num_blocks() == HFEngine(model=OPT, device=Device.cpu).sized(1).num_blocks()


def test_describing_and_validating_an_engine_needs_no_torch() -> None:
    code = """
import sys
from tetribench.engine.hf.schema import HFEngine, Device
from tetribench.engine.model import Model
HFEngine(model=Model(name="m"), device=Device.cpu).sized(2)
assert not {"torch", "transformers", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
