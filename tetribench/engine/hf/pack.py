"""A batch as tensors: what the model takes, and what the paged attention needs to find its keys."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.core.units import MIB, ceil_div
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention import ChunkRows, DecodeGroup, Gather, LaterChunkRows, PagedRows
from tetribench.engine.hf.cache import TorchKVPool

IntArray = npt.NDArray[np.int64]

_CPU_GROUP_BYTES = 2 * MIB
_CUDA_GROUP_BYTES = 256 * MIB
"""Keys gathered at a time. On the CPU they must still lie in the core's cache when attention reads them."""

_CPU_WASTE_BYTES = MIB // 8
_CUDA_WASTE_BYTES = 256 * MIB
"""Keys of padding that a sequence may be gathered with to save it a group of its own, which costs as much time as
about that many."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One forward pass over `[1, rows]`; `output_rows` yield the tokens at `output_positions` of `request_ids`."""

    input_ids: Tensor
    position_ids: Tensor
    output_rows: Tensor
    request_ids: list[int]
    output_positions: list[int]
    paged: PagedRows


class Packer:
    """Packs batches for one pool; all of them gather into the same two buffers."""

    def __init__(self, pool: TorchKVPool, max_context_tokens: int) -> None:
        self.pool = pool
        memory = pool.memory
        num_layers, block_size, block_shape = memory.shape[1], pool.block_size, memory.shape[3:]
        context_blocks = ceil_div(max_context_tokens, block_size)
        block_bytes = block_shape.numel() * memory.element_size()
        self._group_blocks = (_CUDA_GROUP_BYTES if memory.is_cuda else _CPU_GROUP_BYTES) // block_bytes
        self._waste_blocks = (_CUDA_WASTE_BYTES if memory.is_cuda else _CPU_WASTE_BYTES) // block_bytes
        buffer_shape = (max(self._group_blocks, context_blocks), *block_shape)
        self._gather_buffers = (memory.new_empty(buffer_shape), memory.new_empty(buffer_shape))
        self._block_stride = num_layers * 2 * block_size
        self._layer_offsets = torch.arange(num_layers * 2, device=memory.device)[:, None] * block_size
        self._key_positions = torch.arange(context_blocks * block_size, device=memory.device)

    def pack(self, batch: Batch) -> PackedBatch:
        """Decoding sequences come first, longest first, so that those gathered together are of similar length."""
        decode = sorted(batch.decode, key=lambda sequence: sequence.num_tokens, reverse=True)
        columns = [self._decode_columns(decode), *map(self._chunk_columns, batch.prefill)]
        columns.append(self._padding_columns(batch.num_padding_tokens))
        input_ids, position_ids, slots = self._upload(np.concatenate(columns, axis=1))
        chunks = list(self._chunks(batch.prefill, len(decode)))
        ends = [rows.stop for rows, chunk in zip(chunks, batch.prefill, strict=True) if chunk.yields_token]
        yielding = [*decode, *(chunk.sequence for chunk in batch.prefill if chunk.yields_token)]
        output_rows = np.array([*range(len(decode)), *(end - 1 for end in ends)], dtype=np.int64)
        return PackedBatch(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            output_rows=self._upload(output_rows),
            request_ids=[sequence.request.id for sequence in yielding],
            output_positions=[sequence.num_tokens for sequence in yielding],
            paged=PagedRows(
                pool=self.pool,
                slots=(slots + self._layer_offsets).unbind(),
                decode=list(self._decode_groups(decode)),
                chunks=chunks,
                num_used=len(decode) + batch.num_prefill_tokens,
            ),
        )

    def _decode_columns(self, decode: list[Sequence]) -> IntArray:
        """Token, position and slot of each sequence's latest token: `[3, sequences]`."""
        positions = [sequence.num_tokens - 1 for sequence in decode]
        tokens = [s.token_ids(position, position + 1)[0] for s, position in zip(decode, positions, strict=True)]
        block_size = self.pool.block_size
        slots = [
            sequence.block_ids[position // block_size] * self._block_stride + position % block_size
            for sequence, position in zip(decode, positions, strict=True)
        ]
        return np.array([tokens, positions, slots], dtype=np.int64)

    def _chunk_columns(self, chunk: PrefillChunk) -> IntArray:
        stop = chunk.start + chunk.num_tokens
        positions = np.arange(chunk.start, stop)
        block_size = self.pool.block_size
        blocks = np.array(chunk.sequence.block_ids, dtype=np.int64)
        slots = blocks[positions // block_size] * self._block_stride + positions % block_size
        return np.stack([np.array(chunk.sequence.token_ids(chunk.start, stop), dtype=np.int64), positions, slots])

    def _padding_columns(self, num_rows: int) -> IntArray:
        """Token 0 at position 0, written to the scratch block."""
        columns = np.zeros((3, num_rows), dtype=np.int64)
        columns[2] = self.pool.scratch_block * self._block_stride + np.arange(num_rows) % self.pool.block_size
        return columns

    def _decode_groups(self, decode: list[Sequence]) -> Iterator[DecodeGroup]:
        """Consecutive rows whose block tables, all as long as the first one's, fit the gather buffer, and of which none
        is much shorter than the first."""
        sizes = [ceil_div(sequence.num_tokens, self.pool.block_size) for sequence in decode]
        start = 0
        while start < len(decode):
            num_keys, num_blocks = decode[start].num_tokens, sizes[start]
            most = start + max(self._group_blocks // num_blocks, 1)
            rows = [
                one
                for one, size in zip(decode[start:most], sizes[start:most], strict=False)
                if num_blocks - size <= self._waste_blocks
            ]
            table = np.full((len(rows), num_blocks), self.pool.scratch_block, dtype=np.int64)
            for row, sequence, num_own in zip(table, rows, sizes[start:], strict=False):
                row[:num_own] = sequence.block_ids[:num_own]
            mask = self._length_mask([sequence.num_tokens for sequence in rows])
            gather = Gather(self._gather_buffers, self._upload(table.reshape(-1)), len(rows), num_keys)
            stop = start + len(rows)
            yield DecodeGroup(start, stop, gather, mask)
            start = stop

    def _length_mask(self, num_keys: list[int]) -> Tensor | None:
        """Lengths are descending."""
        if num_keys[0] == num_keys[-1]:
            return None
        lengths = self._upload(np.array(num_keys, dtype=np.int64))
        beyond = self._key_positions[: num_keys[0]] >= lengths[:, None]
        mask = torch.zeros(beyond.shape, dtype=self.pool.memory.dtype, device=beyond.device)
        return mask.masked_fill_(beyond, -torch.inf)[:, None, None]

    def _chunks(self, prefill: list[PrefillChunk], start: int) -> Iterator[ChunkRows]:
        for chunk in prefill:
            stop = start + chunk.num_tokens
            if chunk.start == 0:
                yield ChunkRows(start, stop)
            else:
                num_keys = chunk.start + chunk.num_tokens
                blocks = chunk.sequence.block_ids[: ceil_div(num_keys, self.pool.block_size)]
                mask = self.pool.memory.new_full((chunk.num_tokens, num_keys), -torch.inf).triu_(chunk.start + 1)
                block_ids = self._upload(np.array(blocks, dtype=np.int64))
                gather = Gather(self._gather_buffers, block_ids, num_sequences=1, num_keys=num_keys)
                yield LaterChunkRows(start, stop, gather, mask)
            start = stop

    def _upload(self, array: IntArray) -> Tensor:
        return torch.from_numpy(array).to(self.pool.memory.device)
