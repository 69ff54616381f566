"""Prefill passes of one size recorded once, then replayed: chunked prefill fills up every pass to ChunkSize rows (paper
section 3.3.3), whatever prompts it takes them from. On a CPU they are lists of calls; not yet seen on a GPU."""

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor

from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch
from tetribench.engine.hf.attention.backend import PagedRows, ReplayableChunkBackend
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.graphs import Record, Staged, record_all
from tetribench.engine.hf.pack import ChunkRows

Forward = Callable[[Tensor, Tensor, PagedRows, Tensor], Tensor]
"""Token ids and positions, both `[1, rows]`, and which rows are asked for, to logits `[rows asked for, vocabulary]`."""

NUM_SEQUENCES = (1, 2, 4, 8, 16)
"""Recorded for so many pieces of prompts in a pass. A piece of no rows costs an attention kernel's programs a look at
its length: as many for every 128 rows and head."""


class ChunkGraphs:
    """Graphs of greedy passes over `num_rows` rows of prompts, one for each of a few numbers of pieces.

    How long the contexts are makes no difference: kernels read it on the device. Padding is the last piece, a sequence
    of its own in the scratch block, so that its rows come to something finite. All graphs read and write the same
    buffers. Raises ValueError where the model cannot be recorded.
    """

    def __init__(
        self,
        forward: Forward,
        backend: ReplayableChunkBackend,
        pool: TorchKVPool,
        max_context_tokens: int,
        num_rows: int,
        record: Record,
    ) -> None:
        self._forward = forward
        self._backend = backend
        self._num_rows = num_rows
        self._scratch_block = pool.scratch_block
        self._scratch_slot = pool.scratch_slot
        device, most = pool.memory.device, NUM_SEQUENCES[-1]
        width = ceil_div(max(max_context_tokens, num_rows), pool.block_size)
        self._columns = Staged((3, num_rows), torch.int64, device)
        self._row_starts = Staged((most + 1,), torch.int32, device)
        self._num_keys = Staged((most,), torch.int32, device)
        self._block_table = Staged((most, width), torch.int32, device)
        self._output_rows = Staged((most,), torch.int64, device)
        self._tokens = torch.zeros(most, dtype=torch.int64, device=device)
        self._fill_with_padding()
        self._replay = record_all(NUM_SEQUENCES, self._pass, record, f"engine.graph_chunk_tokens={num_rows}")

    def covers(self, batch: Batch) -> bool:
        """Chunks alone, of just so many rows with the padding, and not of too many prompts."""
        num_pieces = len(batch.prefill) + bool(batch.num_padding_tokens)
        is_prefill = bool(batch.prefill) and not batch.decode
        return is_prefill and batch.num_rows == self._num_rows and num_pieces <= NUM_SEQUENCES[-1]

    def run(self, rows: ChunkRows) -> list[int]:
        """The next token of each prompt that yields one."""
        num_pieces, num_blocks = rows.block_table.shape
        self._columns.host.copy_(torch.from_numpy(rows.columns))
        self._row_starts.host.fill_(self._num_rows)  # pieces after the last have no rows
        self._row_starts.host[: num_pieces + 1] = torch.from_numpy(rows.row_starts)
        self._num_keys.host.zero_()
        self._num_keys.host[:num_pieces] = torch.from_numpy(rows.num_keys)
        self._block_table.host.fill_(self._scratch_block)
        self._block_table.host[:num_pieces, :num_blocks] = torch.from_numpy(rows.block_table)
        self._output_rows.host.zero_()
        self._output_rows.host[: len(rows.output_rows)] = torch.from_numpy(rows.output_rows)
        self._upload()
        self._replay[NUM_SEQUENCES[bisect_left(NUM_SEQUENCES, num_pieces)]]()
        tokens: list[int] = self._tokens[: len(rows.output_rows)].tolist()
        return tokens

    def _fill_with_padding(self) -> None:
        """What is recorded on: rows of nobody."""
        self._columns.host[2] = self._scratch_slot
        self._row_starts.host[1:] = self._num_rows
        self._num_keys.host[0] = self._num_rows
        self._block_table.host.fill_(self._scratch_block)
        self._upload()

    def _upload(self) -> None:
        """The host buffers may be written again: each pass is waited for."""
        for staged in (self._columns, self._row_starts, self._num_keys, self._block_table, self._output_rows):
            staged.upload()

    def _pass(self, num_pieces: int) -> None:
        input_ids, position_ids, slots = self._columns.device
        tables = Tables(
            row_starts=self._row_starts.device[: num_pieces + 1],
            num_keys=self._num_keys.device[:num_pieces],
            block_table=self._block_table.device[:num_pieces],
            num_decode=0,
            max_chunk_rows=self._num_rows,
        )
        paged = PagedRows(self._backend.plan_fixed_chunks(slots, tables), num_used=self._num_rows)
        logits = self._forward(input_ids[None], position_ids[None], paged, self._output_rows.device[:num_pieces])
        torch.argmax(logits, dim=-1, out=self._tokens[:num_pieces])
