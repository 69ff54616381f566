"""Which attention backend an engine gets: the one asked for, or the fastest that agrees with torch's own attention."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tetribench.engine.hf.attention.backend import AttentionBackend
from tetribench.engine.hf.attention.options import FASTEST_FIRST, Attention, AttentionNeeds, why_not, why_not_by_itself
from tetribench.engine.hf.attention.sdpa import SdpaBackend
from tetribench.engine.hf.attention.self_check import difference_from_sdpa
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.model import ModelShape

MakeBackend = Callable[[TorchKVPool, int], AttentionBackend]
"""For a pool, and contexts of at most so many tokens."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """`passed_over` are the faster ones that `auto` did not take, and why."""

    attention: Attention
    make: MakeBackend
    passed_over: dict[str, str]


def choose_attention(
    wanted: Attention, needs: AttentionNeeds, shape: ModelShape, block_size: int, device: torch.device
) -> Chosen:
    """Every candidate but `sdpa` computes a small batch first.

    Raises a one-line ValueError where the one asked for cannot run or computes something else.
    """
    is_auto = wanted is Attention.auto
    passed_over: dict[str, str] = {}
    for candidate in FASTEST_FIRST if is_auto else (wanted,):
        make = _maker(candidate, needs, shape.num_heads)
        reason = (why_not_by_itself if is_auto else why_not)(candidate, needs)
        if reason is None and candidate is not Attention.sdpa:
            dtype: torch.dtype = getattr(torch, needs.dtype)
            reason = difference_from_sdpa(make, shape, block_size, device, dtype)
        if reason is None:
            return Chosen(candidate, make, passed_over)
        passed_over[candidate.value] = reason
    assert not is_auto, "sdpa always runs"
    raise ValueError(f"engine.attention={wanted.value}: {passed_over[wanted.value]}; legal are auto and sdpa")


def _maker(attention: Attention, needs: AttentionNeeds, num_heads: int) -> MakeBackend:
    """A backend's package or library is looked for when it is made."""

    def triton(pool: TorchKVPool, max_context_tokens: int) -> AttentionBackend:
        from tetribench.engine.hf.attention.triton import TritonBackend

        return TritonBackend(pool, num_heads)

    def fa3(pool: TorchKVPool, max_context_tokens: int) -> AttentionBackend:
        from tetribench.engine.hf.attention.fa3 import Fa3Backend

        assert needs.fa3_library is not None, "refused before"
        return Fa3Backend(pool, needs.fa3_library)

    def flashinfer(pool: TorchKVPool, max_context_tokens: int) -> AttentionBackend:
        from tetribench.engine.hf.attention.flashinfer import FlashInferBackend

        return FlashInferBackend(pool, num_heads)

    def native(pool: TorchKVPool, max_context_tokens: int) -> AttentionBackend:
        from tetribench.engine.hf.attention.native.backend import NativeBackend

        return NativeBackend(pool, max_context_tokens, num_heads)

    makers: dict[Attention, MakeBackend] = {
        Attention.sdpa: SdpaBackend,
        Attention.triton: triton,
        Attention.fa3: fa3,
        Attention.native: native,
        Attention.flashinfer: flashinfer,
    }
    return makers[attention]
