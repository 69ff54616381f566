"""Which attention backends can run where, told before anything is loaded. torch is imported for a CUDA device only."""

import os
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from tetribench.engine.native.compiler import why_no_compiler


class Attention(Enum):
    """What computes attention; `auto` is the fastest that the device has and that agrees with `sdpa` at start-up.

    `sdpa` is torch's own on gathered keys, `triton` kernels of this package, `fa3` FlashAttention 3 with paged keys
    from a library file (`fa3_library`), `flashinfer` the package of that name. `native` is for the CPU: kernels in
    C, which the machine's compiler compiles when an engine starts.
    """

    auto = "auto"
    sdpa = "sdpa"
    triton = "triton"
    native = "native"
    fa3 = "fa3"
    flashinfer = "flashinfer"


FASTEST_FIRST = (Attention.fa3, Attention.flashinfer, Attention.triton, Attention.native, Attention.sdpa)

REPLAYS_CHUNKS = (Attention.triton, Attention.fa3, Attention.native)
"""Kernels that follow tables for prompts too, so that a recorded pass serves any."""

_FLASHINFER_HEAD_SIZES = (64, 128, 256)
_HOPPER = (9, 0)
_NATIVE_LANES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNeeds:
    """What a backend is asked for."""

    is_cuda: bool
    dtype: str
    head_size: int
    fa3_library: str | None


def why_not(attention: Attention, needs: AttentionNeeds) -> str | None:
    """The reason why `attention` cannot run; None where nothing is known against it."""
    match attention:
        case Attention.triton:
            return _why_not_triton(needs)
        case Attention.native:
            return _why_not_native(needs)
        case Attention.fa3:
            return _why_not_fa3(needs)
        case Attention.flashinfer:
            return _why_not_flashinfer(needs)
    return None


def why_not_by_itself(attention: Attention, needs: AttentionNeeds) -> str | None:
    """The reason why `auto` passes `attention` over."""
    reason = why_not(attention, needs)
    if reason is None and attention is Attention.flashinfer:
        return "runs on request only, as it compiles for minutes and cannot be in CUDA graphs"
    if reason is None and attention is Attention.triton and not needs.is_cuda:
        return "without a CUDA device only interpreted"
    return reason


def _why_not_triton(needs: AttentionNeeds) -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if not needs.is_cuda and not is_interpreted():
        return "needs a CUDA device (or TRITON_INTERPRET=1, which is for tests)"
    return None


def is_interpreted() -> bool:
    """Triton runs its kernels in Python, on any device."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


def _why_not_native(needs: AttentionNeeds) -> str | None:
    if needs.is_cuda:
        return "computes on the CPU only"
    if needs.dtype != "float32":
        return f"computes in float32 only, not in {needs.dtype}"
    if needs.head_size % _NATIVE_LANES:
        return f"takes head sizes that are multiples of {_NATIVE_LANES}, not {needs.head_size}"
    return why_no_compiler()


def _why_not_fa3(needs: AttentionNeeds) -> str | None:
    if not needs.is_cuda:
        return "needs a CUDA device"
    if needs.fa3_library is None:
        return "engine.fa3_library does not say where its library is"
    if not Path(needs.fa3_library).is_file():
        return f"engine.fa3_library={needs.fa3_library} is no file"
    if needs.dtype == "float32":
        return "computes in float16 and bfloat16 only, not in float32"
    if needs.head_size % 8 or needs.head_size > 256:
        return f"takes head sizes that are multiples of 8 up to 256, not {needs.head_size}"
    import torch

    found = torch.cuda.get_device_capability()
    if found != _HOPPER:
        return "needs a GPU of compute capability {}.{}, not {}.{}".format(*_HOPPER, *found)
    return None


def _why_not_flashinfer(needs: AttentionNeeds) -> str | None:
    if not needs.is_cuda:
        return "needs a CUDA device"
    if find_spec("flashinfer") is None:
        return "the package flashinfer-python is not installed"
    if needs.dtype == "float32":
        return "computes in float16 and bfloat16 only, not in float32"
    if needs.head_size not in _FLASHINFER_HEAD_SIZES:
        return f"takes head sizes {', '.join(map(str, _FLASHINFER_HEAD_SIZES))}, not {needs.head_size}"
    return None
