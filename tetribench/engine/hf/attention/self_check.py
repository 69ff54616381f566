"""A small batch computed by a backend and by torch's own attention, before any weight is loaded."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionBackend
from tetribench.engine.hf.attention.sdpa import SdpaBackend
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.pack import Packer
from tetribench.engine.model import ModelShape

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Values are about 1. In float32 a GPU may round products to 10 bits of mantissa."""

_NUM_BLOCKS = 16
_SMALL_CONTEXT_BLOCKS = 4


def difference_from_sdpa(
    make: Callable[[TorchKVPool, int], AttentionBackend],
    shape: ModelShape,
    block_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    """Why not to trust the backend: it fails, or its outputs differ. None where they agree."""
    results = []
    for make_one in (SdpaBackend, make):
        pool = TorchKVPool.allocate(_NUM_BLOCKS, block_size, _one_layer(shape), device, dtype)
        try:
            results.append(_attend(make_one(pool, _SMALL_CONTEXT_BLOCKS * block_size), pool, shape))
        except Exception as error:  # a missing symbol, a compiler's complaint: any of them rules the backend out
            return f"fails on a small batch ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    expected, found = results
    most = (expected - found).abs().max().item()
    if not most <= _TOLERANCE[dtype]:  # a NaN is not either
        return f"differs from sdpa by {most:.2g} on a small batch, more than {_TOLERANCE[dtype]:g}"
    return None


def _one_layer(shape: ModelShape) -> ModelShape:
    return replace(shape, num_layers=1)


def _attend(backend: AttentionBackend, pool: TorchKVPool, shape: ModelShape) -> Tensor:
    """Outputs of two decodes of different length, a prompt's first chunk and another's later one."""
    pool.memory.copy_(_random(pool.memory.shape, pool.memory))
    size = pool.block_size
    free = iter([5, 12, 0, 9, 3, 14, 7, 1, 10, 4, 15, 2, 11, 6, 13, 8])

    def sequence(request_id: int, num_tokens: int) -> Sequence:
        request = Request(
            id=request_id,
            arrival_s=0.0,
            num_prompt_tokens=num_tokens,
            max_output_tokens=1,
            prompt_ids=(0,) * num_tokens,
        )
        block_ids = [next(free) for _ in range(_SMALL_CONTEXT_BLOCKS)]
        return Sequence(request=request, predicted=LengthRange(0, 1), block_ids=block_ids)

    later = sequence(3, 3 * size)
    batch = Batch(
        decode=[sequence(0, 3 * size + 1), sequence(1, 1)],
        prefill=[PrefillChunk(sequence(2, size + 2), 0, size + 2), PrefillChunk(later, size, 2 * size)],
    )
    plan = Packer(pool, backend).pack(batch).paged.plan
    num_rows = len(batch.decode) + batch.num_prefill_tokens
    query = _random((num_rows, shape.num_heads, shape.head_size), pool.memory)
    keys, values = _random((2, num_rows, shape.num_kv_heads, shape.head_size), pool.memory)
    plan.write(0, keys, values)
    return plan.attend(0, query, keys, values, shape.head_size**-0.5).float()


def _random(sizes: tuple[int, ...], like: Tensor) -> Tensor:
    """The same for every backend."""
    drawn = torch.randn(sizes, generator=torch.Generator().manual_seed(0))
    return drawn.to(like.device, like.dtype)
