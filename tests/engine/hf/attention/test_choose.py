"""Which backend runs: options against what there is, and the check against torch's own attention."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tetribench.engine.hf.attention.options as options
import tetribench.engine.native.compiler as compiler
from tests.engine.hf.driver import MODELS
from tetribench.engine.hf.attention.backend import AttentionBackend
from tetribench.engine.hf.attention.choose import choose_attention
from tetribench.engine.hf.attention.options import Attention, AttentionNeeds, why_not, why_not_by_itself
from tetribench.engine.hf.attention.sdpa import SdpaBackend, SdpaPlan
from tetribench.engine.hf.attention.self_check import difference_from_sdpa
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.schema import Device, HFEngine

CPU = torch.device("cpu")
ON_CPU = AttentionNeeds(is_cuda=False, dtype="float32", head_size=64, fa3_library=None)
ON_GPU = AttentionNeeds(is_cuda=True, dtype="float16", head_size=128, fa3_library=None)
SHAPE = MODELS["llama"].shape()


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: object())
    monkeypatch.setattr(compiler, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.usefixtures("everything_installed")
def test_what_a_gpu_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "fa3.so"
    library.touch()
    with_fa3 = replace(ON_GPU, fa3_library=str(library))
    refused = {attention for attention in Attention if why_not(attention, with_fa3)}
    assert refused == {Attention.native}
    reasons = [
        (Attention.fa3, ON_GPU, "engine.fa3_library does not say"),
        (Attention.fa3, replace(ON_GPU, fa3_library="/nowhere"), "engine.fa3_library=/nowhere is no file"),
        (Attention.fa3, replace(with_fa3, dtype="float32"), "not in float32"),
        (Attention.fa3, replace(with_fa3, head_size=100), "not 100"),
        (Attention.flashinfer, replace(ON_GPU, head_size=80), "not 80"),
        (Attention.flashinfer, replace(ON_GPU, dtype="float32"), "not in float32"),
    ]
    for attention, needs, words in reasons:
        assert words in str(why_not(attention, needs))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert "compute capability 9.0, not 8.0" in str(why_not(Attention.fa3, with_fa3))


@pytest.mark.usefixtures("everything_installed")
def test_a_cpu_runs_sdpa_and_native(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {attention for attention in Attention if why_not(attention, ON_CPU)}
    assert refused == {Attention.triton, Attention.fa3, Attention.flashinfer}
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_not(Attention.triton, ON_CPU) is None
    assert why_not_by_itself(Attention.triton, ON_CPU) == "without a CUDA device only interpreted"


@pytest.mark.usefixtures("everything_installed")
def test_flashinfer_is_not_taken_unasked() -> None:
    assert why_not(Attention.flashinfer, ON_GPU) is None
    assert "on request only" in str(why_not_by_itself(Attention.flashinfer, ON_GPU))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert why_not(Attention.triton, ON_GPU) == "the package triton is not installed"
    assert why_not(Attention.flashinfer, ON_GPU) == "the package flashinfer-python is not installed"


@pytest.mark.usefixtures("everything_installed")
def test_what_the_kernel_in_c_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = [
        (ON_GPU, "computes on the CPU only"),
        (replace(ON_CPU, dtype="bfloat16"), "computes in float32 only, not in bfloat16"),
        (replace(ON_CPU, head_size=72), "takes head sizes that are multiples of 16, not 72"),
    ]
    for needs, words in reasons:
        assert why_not(Attention.native, needs) == words
    monkeypatch.setattr(compiler, "which", lambda name: None)
    assert why_not(Attention.native, ON_CPU) == "finds no C compiler: none of cc, gcc, clang is on the PATH"


def test_auto_says_what_it_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "which", lambda name: None)
    chosen = choose_attention(Attention.auto, ON_CPU, SHAPE, 16, CPU)
    assert chosen.attention is Attention.sdpa
    assert list(chosen.passed_over) == ["fa3", "flashinfer", "triton", "native"]
    assert chosen.passed_over["fa3"] == "needs a CUDA device"


def test_what_cannot_run_is_refused_in_one_line_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"^engine.attention=fa3: needs a CUDA device; legal here are auto and sdpa$"):
        HFEngine(model=MODELS["opt"], device=Device.cpu, attention=Attention.fa3).sized(1)
    HFEngine(model=MODELS["opt"], device=Device.cpu, attention=Attention.sdpa).sized(1)


class Changed(SdpaBackend):
    """torch's own attention, with its outputs changed."""

    def __init__(self, pool: TorchKVPool, max_context_tokens: int, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(pool, max_context_tokens)
        self._change = change

    def plan(self, *arguments: object) -> SdpaPlan:
        plan, change = super().plan(*arguments), self._change  # type: ignore[arg-type]

        class ChangedPlan(SdpaPlan):
            def attend(self, *arguments: object) -> Tensor:
                return change(plan.attend(*arguments))  # type: ignore[arg-type]

        return ChangedPlan(plan.pool, plan.slots, plan.decode, plan.chunks)


def changed_by(change: Callable[[Tensor], Tensor]) -> Callable[[TorchKVPool, int], AttentionBackend]:
    return lambda pool, max_context_tokens: Changed(pool, max_context_tokens, change)


def fail(out: Tensor) -> Tensor:
    raise RuntimeError("no kernel image\nis available")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backend_that_agrees_passes_the_check(dtype: torch.dtype) -> None:
    assert difference_from_sdpa(changed_by(lambda out: out), SHAPE, 16, CPU, dtype) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: out + 0.1, "differs from sdpa by 0.1 "),
        (lambda out: torch.cat([out[:-1], out[-1:] * torch.nan]), "differs from sdpa by nan"),
        (fail, r"fails on a small batch \(RuntimeError: no kernel image\)$"),
    ],
)
def test_a_backend_that_is_wrong_or_fails_is_found_out(change: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(difference_from_sdpa(changed_by(change), SHAPE, 16, CPU, torch.float32))
