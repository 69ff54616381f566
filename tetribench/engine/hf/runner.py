"""The engine: one forward pass of the model for each batch, on a thread of its own."""

import asyncio
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch, Engine, EngineInfo, OnLayer, PrefillChunk
from tetribench.engine.hf.attention.backend import (
    AttentionBackend,
    PagedRows,
    ReplayableBackend,
    ReplayableChunkBackend,
    layer_written,
    paged_rows,
)
from tetribench.engine.hf.cache import TorchKVPool, why_by_torch
from tetribench.engine.hf.chunk_graphs import ChunkGraphs
from tetribench.engine.hf.decode_rows import DecodeRows
from tetribench.engine.hf.flat import OperatorRecorder
from tetribench.engine.hf.graphs import CudaRecorder, DecodeGraphs, Record, record_call
from tetribench.engine.hf.host import HostMemory
from tetribench.engine.hf.lane import Lane
from tetribench.engine.hf.pack import ChunkRows, PackedBatch, Packer
from tetribench.engine.hf.sampling import Sampler

WARM_UP_TOKENS = 1024
"""Computed in two chunks before an engine is ready."""


class HFRunner(Engine):
    """Runs batches on `model`, whose attention is the paged one, with keys and values in `pool`, and on `lane`, where
    all of them have been made."""

    pool: TorchKVPool

    def __init__(
        self,
        model: PreTrainedModel,
        pool: TorchKVPool,
        num_parameters: int,
        lane: Lane,
        backend: AttentionBackend,
        sampler: Sampler,
        max_context_tokens: int,
        stop_token_ids: tuple[int, ...],
        num_host_blocks: int = 0,
        num_sharing: int = 1,
        attention_passed_over: dict[str, str] | None = None,
        linear: str | None = None,
        has_compiled_layers: bool = False,
        graph_sequences: int = 0,
        graph_chunk_tokens: int = 0,
        is_traceable: bool = False,
    ) -> None:
        """`is_traceable` says that all which a pass of `model` does are torch's operators."""
        self.pool = pool
        info = _read_back(model, pool, num_parameters, max_context_tokens, stop_token_ids, num_host_blocks)
        self.info = replace(
            info,
            num_sharing=num_sharing,
            num_multiprocessors=lane.num_multiprocessors,
            attention=f"{backend.name} paged",
            attention_passed_over=attention_passed_over or {},
            linear=linear,
            has_compiled_layers=has_compiled_layers,
            graph_sequences=graph_sequences,
            graph_chunk_tokens=graph_chunk_tokens,
        )
        self._host = HostMemory(pool, num_host_blocks)
        self._lane = lane
        self._is_traceable = is_traceable
        self._model = model
        self._packer = Packer(pool, backend)
        self._sampler = sampler
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine", initializer=lane.enter)
        self._worker.submit(self._warm_up).result()
        self._graphs: DecodeGraphs | None = None
        self._chunk_graphs: ChunkGraphs | None = None
        if graph_sequences:
            self._graphs = self._worker.submit(self._recorded, backend, graph_sequences).result()
        if graph_chunk_tokens:
            self._chunk_graphs = self._worker.submit(self._recorded_chunks, backend, graph_chunk_tokens).result()

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        """On CUDA nothing is told of layers: they are in their blocks when the device gets there, not when they are
        launched."""
        packed = self._pack(batch)  # here, as the sequences belong to the event loop's thread
        await asyncio.sleep(0)  # the KV of the batch before sets out before this one takes the processor
        loop = asyncio.get_running_loop()
        tell = None
        if on_layer is not None and not self.pool.memory.is_cuda:

            def tell(layer: int) -> None:
                loop.call_soon_threadsafe(on_layer, layer)

        return await loop.run_in_executor(self._worker, self._step, packed, batch, tell)

    def run_here(self, batch: Batch) -> dict[int, int]:
        """The same without an event loop; waits for it."""
        return self._worker.submit(self._step, self._pack(batch), batch).result()

    def close(self) -> None:
        self._worker.shutdown()
        del self._model, self.pool, self._packer, self._host, self._graphs, self._chunk_graphs

    def _pack(self, batch: Batch) -> PackedBatch | DecodeRows | ChunkRows:
        if self._graphs is not None and self._graphs.covers(batch):
            return self._packer.decode_rows(batch.decode)
        if self._chunk_graphs is not None and self._chunk_graphs.covers(batch):
            return self._packer.chunk_rows(batch)
        with self._lane.launching():  # copies to the device come before the pass that reads them
            return self._packer.pack(batch)

    @torch.inference_mode()
    def _step(
        self, packed: PackedBatch | DecodeRows | ChunkRows, batch: Batch, on_layer: OnLayer | None = None
    ) -> dict[int, int]:
        """A replayed pass tells nothing of its layers."""
        self._host.swap(batch)
        if isinstance(packed, PackedBatch):
            chosen = self._choose(packed, on_layer) if packed.input_ids.shape[1] else []
        else:
            chosen = self._replay(packed)
        if self.pool.memory.is_cuda:
            # copies, keys and values are there before anyone is told
            torch.cuda.current_stream(self.pool.memory.device).synchronize()
        return dict(zip(packed.request_ids, chosen, strict=True))

    def _replay(self, packed: DecodeRows | ChunkRows) -> list[int]:
        layer_written.set(None)
        if isinstance(packed, DecodeRows):
            assert self._graphs is not None, "packed for a graph"
            return self._graphs.run(packed)
        assert self._chunk_graphs is not None, "packed for a graph"
        return self._chunk_graphs.run(packed)

    def _choose(self, packed: PackedBatch, on_layer: OnLayer | None) -> list[int]:
        layer_written.set(on_layer)
        logits = self._forward(packed.input_ids, packed.position_ids, packed.paged, packed.output_rows)
        return self._sampler.choose(logits, packed.request_ids, packed.output_positions)

    def _forward(
        self, input_ids: Tensor, position_ids: Tensor, paged: PagedRows, output_rows: Tensor | int = 0
    ) -> Tensor:
        """Logits of `output_rows`, or of all rows."""
        paged_rows.set(paged)
        output = self._model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, logits_to_keep=output_rows
        )
        logits: Tensor = output.logits[0]
        return logits

    @torch.inference_mode()
    def _recorded(self, backend: AttentionBackend, graph_sequences: int) -> DecodeGraphs:
        assert isinstance(backend, ReplayableBackend), "refused before"
        layer_written.set(None)
        return DecodeGraphs(
            self._forward, backend, self.pool, self.info.max_context_tokens, graph_sequences, self._recorder(backend)
        )

    @torch.inference_mode()
    def _recorded_chunks(self, backend: AttentionBackend, num_tokens: int) -> ChunkGraphs:
        assert isinstance(backend, ReplayableChunkBackend), "refused before"
        layer_written.set(None)
        return ChunkGraphs(
            self._forward, backend, self.pool, self.info.max_context_tokens, num_tokens, self._recorder(backend)
        )

    def _recorder(self, backend: ReplayableBackend) -> Record:
        if self.pool.memory.is_cuda:
            return CudaRecorder(self._lane.recording_stream())
        return OperatorRecorder() if self._is_traceable and backend.is_traceable else record_call

    def _warm_up(self) -> None:
        """A chunk, a chunk after it and a decode step: first calls choose and load kernels, and touch memory.

        After a small chunk alone, the first prompt of a run took a third longer than all others.
        """
        block_size = self.pool.block_size
        num_tokens = min(WARM_UP_TOKENS, self.pool.num_blocks * block_size, self.info.max_context_tokens - 1)
        request = Request(
            id=0, arrival_s=0.0, num_prompt_tokens=num_tokens, max_output_tokens=2, prompt_ids=(0,) * num_tokens
        )
        num_blocks = ceil_div(num_tokens + 1, block_size)
        sequence = Sequence(request=request, predicted=LengthRange(0, 1), block_ids=list(range(num_blocks)))
        half = num_tokens // 2
        for batch in (
            Batch(prefill=[PrefillChunk(sequence, 0, half)]),
            Batch(prefill=[PrefillChunk(sequence, half, num_tokens - half)]),
            Batch(decode=[sequence]),
        ):
            self._step(self._packer.pack(batch), batch)


def _read_back(
    model: PreTrainedModel,
    pool: TorchKVPool,
    num_parameters: int,
    max_context_tokens: int,
    stop_token_ids: tuple[int, ...],
    num_host_blocks: int,
) -> EngineInfo:
    weight = next(model.parameters())
    return EngineInfo(
        num_blocks=pool.num_blocks,
        num_host_blocks=num_host_blocks,
        block_size=pool.block_size,
        max_context_tokens=max_context_tokens,
        stop_token_ids=stop_token_ids,
        block_bytes=pool.block_bytes,
        num_layers=len(pool.layers),
        device=str(weight.device),
        device_uuid=f"GPU-{torch.cuda.get_device_properties(weight.device).uuid}" if weight.is_cuda else None,
        dtype=str(weight.dtype).removeprefix("torch."),
        num_parameters=num_parameters,
        attention="sdpa paged",
        kv_copies_passed_over=why_by_torch(pool.memory.device),
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        },
    )
