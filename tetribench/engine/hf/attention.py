"""Attention over the paged KV memory, called by unmodified transformers models in place of their own.

Rows of one forward pass are packed into a batch of one: decoding sequences first, then prefill chunks, then padding.
The attention name has no mask function registered, so transformers builds no mask for it and passes None.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tetribench.engine.base import OnLayer
from tetribench.engine.hf.cache import TorchKVPool

ATTENTION_NAME = "tetri_paged"


class Gather:
    """Brings scattered blocks together, for one layer after the other, in buffers that all forward passes share.

    Fresh tensors would page-fault every time.
    """

    def __init__(self, buffers: tuple[Tensor, Tensor], block_ids: Tensor, num_sequences: int, num_keys: int) -> None:
        """`block_ids` is `[sequences * blocks]`; `buffers` are `[blocks, block_size, kv_heads, size]`."""
        self._block_ids = block_ids
        self._blocks = [buffer[: block_ids.shape[0]] for buffer in buffers]
        by_sequence = [blocks.view(num_sequences, -1, *blocks.shape[2:]).transpose(1, 2) for blocks in self._blocks]
        self._keys, self._values = (tensor[:, :, :num_keys] for tensor in by_sequence)

    def layer(self, layer_blocks: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values, each `[sequences, kv_heads, num_keys, size]`, valid until the next gather."""
        for blocks, out in zip(layer_blocks, self._blocks, strict=True):
            torch.index_select(blocks, 0, self._block_ids, out=out)
        return self._keys, self._values


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decode rows `[start, stop)`, which are gathered together.

    `mask` is additive, `[rows, 1, 1, num_keys]`, or None where all rows have `num_keys` keys.
    """

    start: int
    stop: int
    gather: Gather
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Rows `[start, stop)` are a chunk that brings its keys itself, being the first of its sequence."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class LaterChunkRows(ChunkRows):
    """A chunk with tokens before it: the keys of both are gathered; `mask` is additive and causal, `[rows, keys]`."""

    gather: Gather
    mask: Tensor


@dataclass(frozen=True, slots=True)
class PagedRows:
    """One forward pass as the attention sees it; rows from `num_used` on are padding.

    `slots` is `[2 * layers, rows]`: where each row's key and value go in the pool's memory, counted in token vectors.
    """

    pool: TorchKVPool
    slots: tuple[Tensor, ...]
    decode: list[DecodeGroup]
    chunks: list[ChunkRows]
    num_used: int


paged_rows: ContextVar[PagedRows] = ContextVar("paged_rows")
"""The forward pass that runs in this thread: not every model hands unknown arguments down to its attention."""

layer_written: ContextVar[OnLayer | None] = ContextVar("layer_written", default=None)
"""Called with each layer of that forward pass whose keys and values are in the pool, where someone waits for them."""


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Write keys and values `[1, kv_heads, rows, size]`, then attend; returns `[1, rows, heads, size]`."""
    assert attention_mask is None and softcap is None and s_aux is None, "refused before the model was loaded"
    rows = paged_rows.get()
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    vectors = rows.pool.vectors
    vectors.index_copy_(0, rows.slots[2 * layer], keys.reshape(keys.shape[0], -1))
    vectors.index_copy_(0, rows.slots[2 * layer + 1], values.reshape(keys.shape[0], -1))

    tell = layer_written.get()
    if tell is not None:
        tell(layer)

    layer_blocks = rows.pool.layers[layer]
    parts = [_decode(query, layer_blocks, group, scaling) for group in rows.decode]
    parts += [_chunk(query, key, value, layer_blocks, chunk, scaling) for chunk in rows.chunks]
    if rows.num_used < query.shape[2]:  # a padding row sees itself only: its output is its value
        parts.append(values[rows.num_used :].repeat_interleave(query.shape[1] // keys.shape[1], dim=1))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), None


def _decode(query: Tensor, layer_blocks: tuple[Tensor, Tensor], group: DecodeGroup, scaling: float | None) -> Tensor:
    """One query for each sequence; heads that share a key head are the query rows of one attention."""
    keys, values = group.gather.layer(layer_blocks)
    num_sequences, num_kv_heads, _, head_size = keys.shape
    rows = query[0, :, group.start : group.stop].transpose(0, 1)
    grouped = rows.reshape(num_sequences, num_kv_heads, -1, head_size)
    out = scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask, scale=scaling)
    return out.reshape(rows.shape)


def _chunk(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer_blocks: tuple[Tensor, Tensor],
    chunk: ChunkRows,
    scaling: float | None,
) -> Tensor:
    """Causal attention of a chunk; heads that share a key head are a batch over the same keys, which costs no copy."""
    num_rows, num_kv_heads = chunk.stop - chunk.start, key.shape[1]
    chunk_query = query[0, :, chunk.start : chunk.stop]
    num_heads, _, head_size = chunk_query.shape
    mask = None
    if isinstance(chunk, LaterChunkRows):
        mask = chunk.mask
        keys, values = chunk.gather.layer(layer_blocks)
    else:
        keys, values = key[:, :, chunk.start : chunk.stop], value[:, :, chunk.start : chunk.stop]
    grouped = chunk_query.reshape(num_kv_heads, -1, num_rows, head_size).transpose(0, 1)
    same = (grouped.shape[0], -1, -1, -1)
    out = scaled_dot_product_attention(
        grouped, keys.expand(same), values.expand(same), attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return out.permute(2, 1, 0, 3).reshape(num_rows, num_heads, head_size)


AttentionInterface.register(ATTENTION_NAME, paged_attention)
