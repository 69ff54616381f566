"""A batch as tensors: what the model takes, and what the paged attention needs to find its keys."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tetribench.core.sequence import Sequence
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.backend import AttentionBackend, PagedRows, ReplayableBackend
from tetribench.engine.hf.attention.tables import Tables, block_table
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.decode_rows import DecodePacker, DecodeRows, IntArray, decode_columns
from tetribench.engine.hf.upload import upload


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One forward pass over `[1, rows]`; `output_rows`, or where it is 0 all of them, yield the tokens at
    `output_positions` of `request_ids`."""

    input_ids: Tensor
    position_ids: Tensor
    output_rows: Tensor | int
    request_ids: list[int]
    output_positions: list[int]
    paged: PagedRows


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Pieces of prompts, the padding after them as one more, on the host: `columns` as in `DecodeRows`.

    Piece `i` has rows `[row_starts[i], row_starts[i + 1])`. `output_rows` yield the tokens of `request_ids`.
    """

    columns: IntArray
    row_starts: npt.NDArray[np.int32]
    num_keys: npt.NDArray[np.int32]
    block_table: npt.NDArray[np.int32]
    output_rows: IntArray
    request_ids: list[int]


class Packer:
    """Packs batches for one pool, with attention planned by `backend`."""

    def __init__(self, pool: TorchKVPool, backend: AttentionBackend) -> None:
        self.pool = pool
        self.backend = backend
        self._decodes = DecodePacker(pool)
        self._by_tables: ReplayableBackend | None = None
        if isinstance(backend, ReplayableBackend) and backend.follows_tables:
            self._by_tables = backend

    def pack(self, batch: Batch) -> PackedBatch:
        """Decoding sequences come first, longest first, so that those gathered together are of similar length.

        Decodes alone, where nothing is gathered, are as they were; what they are packed in is good until the next time.
        """
        are_alone = batch.decode and not batch.prefill and not batch.num_padding_tokens
        if are_alone and self._by_tables is not None:
            return self._decodes_alone(self._decodes.pack(batch.decode), self._by_tables)
        decode = sorted(batch.decode, key=lambda sequence: sequence.num_tokens, reverse=True)
        columns = [decode_columns(decode, self.pool), *map(self._chunk_columns, batch.prefill)]
        columns.append(self._padding_columns(batch.num_padding_tokens))
        device = self.pool.memory.device
        input_ids, position_ids, slots = upload(np.concatenate(columns, axis=1), device)
        yielding = [*decode, *(chunk.sequence for chunk in batch.prefill if chunk.yields_token)]
        return PackedBatch(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            output_rows=upload(_output_rows(len(decode), batch.prefill), device),
            request_ids=[sequence.request.id for sequence in yielding],
            output_positions=[sequence.num_tokens for sequence in yielding],
            paged=PagedRows(
                plan=self.backend.plan(slots, decode, batch.prefill),
                num_used=len(decode) + batch.num_prefill_tokens,
            ),
        )

    def _decodes_alone(self, rows: DecodeRows, backend: ReplayableBackend) -> PackedBatch:
        device, num_rows = self.pool.memory.device, len(rows.request_ids)
        input_ids, position_ids, slots = upload(rows.columns, device)
        tables = Tables(
            row_starts=torch.arange(num_rows + 1, dtype=torch.int32, device=device),
            num_keys=upload(rows.num_keys, device),
            block_table=upload(np.ascontiguousarray(rows.block_table), device),
            num_decode=num_rows,
            max_chunk_rows=0,
        )
        return PackedBatch(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            output_rows=0,
            request_ids=rows.request_ids,
            output_positions=rows.num_keys.tolist(),
            paged=PagedRows(backend.plan_fixed(slots, tables), num_used=num_rows),
        )

    def decode_rows(self, decode: SequenceOf[Sequence]) -> DecodeRows:
        """Of decodes alone; good until the next time."""
        return self._decodes.pack(decode)

    def chunk_rows(self, batch: Batch) -> ChunkRows:
        """Of chunks and padding alone."""
        chunks, num_padding = batch.prefill, batch.num_padding_tokens
        padding = [num_padding] if num_padding else []
        num_keys = [*(chunk.start + chunk.num_tokens for chunk in chunks), *padding]
        scratch = np.full((len(padding), 1), self.pool.scratch_block, dtype=np.int32)
        table = block_table(
            [chunk.sequence for chunk in chunks], num_keys[: len(chunks)], self.pool.block_size, self.pool.scratch_block
        )
        return ChunkRows(
            columns=np.concatenate([*map(self._chunk_columns, chunks), self._padding_columns(num_padding)], axis=1),
            row_starts=np.cumsum([0, *(chunk.num_tokens for chunk in chunks), *padding], dtype=np.int32),
            num_keys=np.array(num_keys, dtype=np.int32),
            block_table=np.concatenate([table, scratch.repeat(table.shape[1], axis=1)]),
            output_rows=_output_rows(0, chunks),
            request_ids=[chunk.sequence.request.id for chunk in chunks if chunk.yields_token],
        )

    def _chunk_columns(self, chunk: PrefillChunk) -> IntArray:
        stop = chunk.start + chunk.num_tokens
        positions = np.arange(chunk.start, stop)
        block_size = self.pool.block_size
        blocks = np.array(chunk.sequence.block_ids, dtype=np.int64)
        slots = blocks[positions // block_size] * self.pool.slots_per_block + positions % block_size
        return np.stack([np.array(chunk.sequence.token_ids(chunk.start, stop), dtype=np.int64), positions, slots])

    def _padding_columns(self, num_rows: int) -> IntArray:
        """Token 0 at position 0, written to the scratch block."""
        columns = np.zeros((3, num_rows), dtype=np.int64)
        columns[2] = self.pool.scratch_slot + np.arange(num_rows) % self.pool.block_size
        return columns


def _output_rows(num_decode: int, prefill: SequenceOf[PrefillChunk]) -> IntArray:
    """Every decode row, and the last row of each chunk that yields a token."""
    rows, stop = list(range(num_decode)), num_decode
    for chunk in prefill:
        stop += chunk.num_tokens
        if chunk.yields_token:
            rows.append(stop - 1)
    return np.array(rows, dtype=np.int64)
