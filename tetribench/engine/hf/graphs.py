"""Decode passes recorded once for each of a few batch sizes, then replayed: the host launches one graph, not a
thousand kernels. Without a GPU the same code records torch's operators, or a call, and replays it by calling."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch
from tetribench.engine.hf.attention.backend import PagedRows, ReplayableBackend
from tetribench.engine.hf.attention.tables import Tables
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.decode_rows import DecodeRows

Forward = Callable[[Tensor, Tensor, PagedRows], Tensor]
"""Token ids and positions, both `[1, rows]`, to logits `[rows, vocabulary]`."""

Run = Callable[[], None]
Record = Callable[[Run], Run]
"""Runs the function once or more; the result does the same work again, on what its tensors then hold."""

_BUCKET_STEP = 16
"""Of the larger buckets; a decode step of a GPU takes as long for 16 sequences as for one."""


def buckets(max_sequences: int) -> list[int]:
    """Batch sizes that are recorded: powers of two, then multiples of 16, and the largest."""
    sizes = [1, 2, 4, 8, *range(_BUCKET_STEP, max_sequences, _BUCKET_STEP), max_sequences]
    return sorted({size for size in sizes if size <= max_sequences})


class DecodeGraphs:
    """Graphs of greedy decodes of up to `max_sequences`, smaller batches filled up to the next bucket.

    A row that fills up is a token 0 at position 0, which is written to the scratch block and sees itself only. All
    graphs read and write the same buffers. Raises ValueError where the model cannot be recorded.
    """

    def __init__(
        self,
        forward: Forward,
        backend: ReplayableBackend,
        pool: TorchKVPool,
        max_context_tokens: int,
        max_sequences: int,
        record: Record,
    ) -> None:
        self._forward = forward
        self._backend = backend
        self._scratch_block = pool.scratch_block
        self._scratch_slot = pool.scratch_slot
        self._sizes = buckets(max_sequences)
        device, width = pool.memory.device, ceil_div(max_context_tokens, pool.block_size)
        self._columns = Staged((3, max_sequences), torch.int64, device)
        self._num_keys = Staged((max_sequences,), torch.int32, device)
        self._block_table = Staged((max_sequences, width), torch.int32, device)
        self._row_starts = torch.arange(max_sequences + 1, dtype=torch.int32, device=device)
        self._tokens = torch.zeros(max_sequences, dtype=torch.int64, device=device)
        self._fill(None, max_sequences)
        self._replay = record_all(self._sizes, self._pass, record, f"engine.graph_sequences={max_sequences}")

    def covers(self, batch: Batch) -> bool:
        """Decodes alone, and not too many."""
        is_decode = bool(batch.decode) and not batch.prefill and not batch.num_padding_tokens
        return is_decode and len(batch.decode) <= self._sizes[-1]

    def run(self, rows: DecodeRows) -> list[int]:
        """The next token of each row."""
        num_rows = len(rows.request_ids)
        size = self._sizes[bisect_left(self._sizes, num_rows)]
        self._fill(rows, size)
        self._replay[size]()
        tokens: list[int] = self._tokens[:num_rows].tolist()
        return tokens

    def _fill(self, rows: DecodeRows | None, size: int) -> None:
        """The host buffers may be written: the pass before has been waited for."""
        num_rows = 0
        if rows is not None:
            num_rows, num_blocks = rows.block_table.shape
            self._columns.host[:, :num_rows] = torch.from_numpy(rows.columns)
            self._num_keys.host[:num_rows] = torch.from_numpy(rows.num_keys)
            self._block_table.host[:num_rows, :num_blocks] = torch.from_numpy(rows.block_table)
            self._block_table.host[:num_rows, num_blocks:] = self._scratch_block
        self._columns.host[:2, num_rows:size] = 0
        self._columns.host[2, num_rows:size] = self._scratch_slot
        self._num_keys.host[num_rows:size] = 1
        self._block_table.host[num_rows:size] = self._scratch_block
        for staged in (self._columns, self._num_keys, self._block_table):
            staged.upload()

    def _pass(self, size: int) -> None:
        """What is recorded. The plan is part of it, as it may compute from slots and lengths."""
        input_ids, position_ids, slots = (column[:size] for column in self._columns.device)
        tables = Tables(
            row_starts=self._row_starts[: size + 1],
            num_keys=self._num_keys.device[:size],
            block_table=self._block_table.device[:size],
            num_decode=size,
            max_chunk_rows=0,
        )
        paged = PagedRows(self._backend.plan_fixed(slots, tables), num_used=size)
        logits = self._forward(input_ids[None], position_ids[None], paged)
        torch.argmax(logits, dim=-1, out=self._tokens[:size])


class Staged:
    """A buffer on the device, and the host's side of it, pinned where that makes the copy one that is only launched."""

    def __init__(self, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.host = torch.zeros(sizes, dtype=dtype, pin_memory=device.type == "cuda")
        self.device = torch.zeros(sizes, dtype=dtype, device=device)

    def upload(self) -> None:
        self.device.copy_(self.host, non_blocking=True)


def record_all(sizes: Iterable[int], one_pass: Callable[[int], None], record: Record, option: str) -> dict[int, Run]:
    """`one_pass` of each size, the largest first: the others fit into its memory.

    Raises ValueError, naming `option`, where the model cannot be recorded.
    """
    try:
        return {size: record(partial(one_pass, size)) for size in sorted(sizes, reverse=True)}
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{option}: a pass of this model cannot be recorded ({reason}); must be 0") from error


def record_call(run: Run) -> Run:
    """On a device without graphs, where not all that a pass does are operators."""
    run()
    return run


class CudaRecorder:
    """Records CUDA graphs on `stream`, which use the same memory, as only one of them runs at a time."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._memory: Any = None

    def __call__(self, run: Run) -> Run:
        """The first pass is for what must not be recorded: compiling, choosing kernels."""
        stream, current = self._stream, torch.cuda.current_stream(self._stream.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            run()
        current.wait_stream(stream)
        graph: Any = torch.cuda.CUDAGraph()
        # other threads of the process, such as another instance's, may go on using the device meanwhile
        with torch.cuda.graph(graph, pool=self._memory, stream=stream, capture_error_mode="thread_local"):
            run()
        self._memory = graph.pool()
        replay: Run = graph.replay
        return replay
