"""Attention by torch alone, on any device: keys are gathered from their blocks, then attended to."""

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tetribench.core.sequence import Sequence
from tetribench.core.units import MIB, ceil_div
from tetribench.engine.base import PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionPlan, ReplayableBackend
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.upload import upload

_CPU_GROUP_BYTES = 2 * MIB
_CUDA_GROUP_BYTES = 256 * MIB
"""Keys gathered at a time. On the CPU they must still lie in the core's cache when attention reads them."""

_CPU_WASTE_BYTES = MIB // 8
_CUDA_WASTE_BYTES = 256 * MIB
"""Keys of padding that a sequence may be gathered with to save it a group of its own, which costs as much time as
about that many."""


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
class SdpaPlan(AttentionPlan):
    """`slots` is `[2 * layers, rows]`: where each row's key and value go in the pool's memory."""

    pool: TorchKVPool
    slots: tuple[Tensor, ...]
    decode: list[DecodeGroup]
    chunks: list[ChunkRows]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        vectors = self.pool.vectors
        vectors.index_copy_(0, self.slots[2 * layer], keys.reshape(keys.shape[0], -1))
        vectors.index_copy_(0, self.slots[2 * layer + 1], values.reshape(keys.shape[0], -1))

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        layer_blocks = self.pool.layers[layer]
        parts = [_decode(query, layer_blocks, group, scaling) for group in self.decode]
        parts += [_chunk(query, keys, values, layer_blocks, chunk, scaling) for chunk in self.chunks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class SdpaBackend(ReplayableBackend):
    """Plans for one pool; all of them gather into the same two buffers."""

    name = "sdpa"
    is_traceable = True
    follows_tables = False

    def __init__(self, pool: TorchKVPool, max_context_tokens: int) -> None:
        self._pool = pool
        memory = pool.memory
        num_layers, block_size, block_shape = memory.shape[1], pool.block_size, memory.shape[3:]
        context_blocks = ceil_div(max_context_tokens, block_size)
        block_bytes = block_shape.numel() * memory.element_size()
        self._group_blocks = (_CUDA_GROUP_BYTES if memory.is_cuda else _CPU_GROUP_BYTES) // block_bytes
        self._waste_blocks = (_CUDA_WASTE_BYTES if memory.is_cuda else _CPU_WASTE_BYTES) // block_bytes
        buffer_shape = (max(self._group_blocks, context_blocks), *block_shape)
        self._gather_buffers = (memory.new_empty(buffer_shape), memory.new_empty(buffer_shape))
        self._layer_offsets = torch.arange(num_layers * 2, device=memory.device)[:, None] * block_size
        self._key_positions = torch.arange(context_blocks * block_size, device=memory.device)

    def plan(self, slots: Tensor, decode: SequenceOf[Sequence], prefill: SequenceOf[PrefillChunk]) -> SdpaPlan:
        groups, chunks = list(self._decode_groups(decode)), list(self._chunks(prefill, start=len(decode)))
        return SdpaPlan(self._pool, (slots + self._layer_offsets).unbind(), groups, chunks)

    def plan_fixed(self, slots: Tensor, tables: Tables) -> SdpaPlan:
        """Every row is gathered with as many keys as the table has room for."""
        num_rows, width = tables.block_table.shape
        num_keys = width * self._pool.block_size
        most = max(self._group_blocks // width, 1)
        groups = []
        for start in range(0, num_rows, most):
            stop = min(start + most, num_rows)
            beyond = self._key_positions[:num_keys] >= tables.num_keys[start:stop, None]
            mask = torch.zeros(beyond.shape, dtype=self._pool.memory.dtype, device=beyond.device)
            block_ids = tables.block_table[start:stop].reshape(-1)
            gather = Gather(self._gather_buffers, block_ids, stop - start, num_keys)
            groups.append(DecodeGroup(start, stop, gather, mask.masked_fill_(beyond, -torch.inf)[:, None, None]))
        return SdpaPlan(self._pool, (slots + self._layer_offsets).unbind(), groups, chunks=[])

    def _decode_groups(self, decode: SequenceOf[Sequence]) -> Iterator[DecodeGroup]:
        """Consecutive rows whose block tables, all as long as the first one's, fit the gather buffer, and of which none
        is much shorter than the first."""
        sizes = [ceil_div(sequence.num_tokens, self._pool.block_size) for sequence in decode]
        start = 0
        while start < len(decode):
            num_keys, num_blocks = decode[start].num_tokens, sizes[start]
            most = start + max(self._group_blocks // num_blocks, 1)
            rows = [
                one
                for one, size in zip(decode[start:most], sizes[start:most], strict=False)
                if num_blocks - size <= self._waste_blocks
            ]
            table = np.full((len(rows), num_blocks), self._pool.scratch_block, dtype=np.int64)
            for row, sequence, num_own in zip(table, rows, sizes[start:], strict=False):
                row[:num_own] = sequence.block_ids[:num_own]
            mask = self._length_mask([sequence.num_tokens for sequence in rows])
            block_ids = upload(table.reshape(-1), self._pool.memory.device)
            gather = Gather(self._gather_buffers, block_ids, len(rows), num_keys)
            stop = start + len(rows)
            yield DecodeGroup(start, stop, gather, mask)
            start = stop

    def _length_mask(self, num_keys: list[int]) -> Tensor | None:
        """Lengths are descending."""
        if num_keys[0] == num_keys[-1]:
            return None
        lengths = upload(np.array(num_keys, dtype=np.int64), self._pool.memory.device)
        beyond = self._key_positions[: num_keys[0]] >= lengths[:, None]
        mask = torch.zeros(beyond.shape, dtype=self._pool.memory.dtype, device=beyond.device)
        return mask.masked_fill_(beyond, -torch.inf)[:, None, None]

    def _chunks(self, prefill: SequenceOf[PrefillChunk], start: int) -> Iterator[ChunkRows]:
        for chunk in prefill:
            stop = start + chunk.num_tokens
            if chunk.start == 0:
                yield ChunkRows(start, stop)
            else:
                num_keys = chunk.start + chunk.num_tokens
                blocks = chunk.sequence.block_ids[: ceil_div(num_keys, self._pool.block_size)]
                mask = self._pool.memory.new_full((chunk.num_tokens, num_keys), -torch.inf).triu_(chunk.start + 1)
                block_ids = upload(np.array(blocks, dtype=np.int64), self._pool.memory.device)
                gather = Gather(self._gather_buffers, block_ids, num_sequences=1, num_keys=num_keys)
                yield LaterChunkRows(start, stop, gather, mask)
            start = stop


def _decode(query: Tensor, layer_blocks: tuple[Tensor, Tensor], group: DecodeGroup, scaling: float) -> Tensor:
    """One query for each sequence; heads that share a key head are the query rows of one attention."""
    keys, values = group.gather.layer(layer_blocks)
    num_sequences, num_kv_heads, _, head_size = keys.shape
    rows = query[group.start : group.stop]
    grouped = rows.reshape(num_sequences, num_kv_heads, -1, head_size)
    out = scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask, scale=scaling)
    return out.reshape(rows.shape)


def _chunk(
    query: Tensor, keys: Tensor, values: Tensor, layer_blocks: tuple[Tensor, Tensor], chunk: ChunkRows, scaling: float
) -> Tensor:
    """Causal attention of a chunk; heads that share a key head are a batch over the same keys, which costs no copy."""
    num_rows, num_kv_heads = chunk.stop - chunk.start, keys.shape[1]
    chunk_query = query[chunk.start : chunk.stop].transpose(0, 1)
    num_heads, _, head_size = chunk_query.shape
    mask = None
    if isinstance(chunk, LaterChunkRows):
        mask = chunk.mask
        all_keys, all_values = chunk.gather.layer(layer_blocks)
    else:
        all_keys, all_values = (rows[chunk.start : chunk.stop].transpose(0, 1)[None] for rows in (keys, values))
    grouped = chunk_query.reshape(num_kv_heads, -1, num_rows, head_size).transpose(0, 1)
    same = (grouped.shape[0], -1, -1, -1)
    out = scaled_dot_product_attention(
        grouped, all_keys.expand(same), all_values.expand(same), attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return out.permute(2, 1, 0, 3).reshape(num_rows, num_heads, head_size)
