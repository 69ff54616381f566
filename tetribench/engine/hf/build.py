"""Puts an engine together in the process that will run it."""

import torch

from tetribench.core.units import GIB
from tetribench.engine.hf.attention.choose import choose_attention
from tetribench.engine.hf.attention.options import REPLAYS_CHUNKS
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.compiled import compile_layers
from tetribench.engine.hf.green.contexts import contexts_of
from tetribench.engine.hf.lane import GreenLane, Lane
from tetribench.engine.hf.linear.layer import pack_linear_layers
from tetribench.engine.hf.models import load_model, stop_token_ids
from tetribench.engine.hf.parallel.cut import cut
from tetribench.engine.hf.parallel.group import Group
from tetribench.engine.hf.runner import HFRunner
from tetribench.engine.hf.sampling import Sampler
from tetribench.engine.hf.schema import Device, HFEngine, Linear
from tetribench.engine.native.heap import keep_freed_memory

_UNHEARD = Sampler(temperature=0.0, top_k=None, top_p=1.0, seed=0)
"""Of ranks whose tokens nobody asks for."""


def device_of(engine: HFEngine, device_index: int | None, rank: int) -> torch.device:
    """Of a rank of the instance that has the `device_index`-th devices of a system."""
    if engine.resolved_device() is Device.cpu:
        return torch.device("cpu")
    return torch.device("cuda", ((device_index or 0) * engine.tensor_parallel + rank) % torch.cuda.device_count())


def _lane(engine: HFEngine, device: torch.device) -> Lane:
    """All of the device, or this instance's part."""
    if engine.num_first_multiprocessors is None:
        return Lane(device)
    return GreenLane(device, contexts_of(device.index, engine.num_first_multiprocessors)[engine.part])


def build_runner(engine: HFEngine, device_index: int | None, group: Group | None = None) -> HFRunner:
    """Model, KV memory and runner, warmed up, of one rank of `group`. On the CPU a rank is one core: torch gets one
    thread."""
    device = device_of(engine, device_index, 0 if group is None else group.rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # this begins CUDA's own context, beside which green ones are made
    lane = _lane(engine, device)
    with lane.launching():
        return _build(engine, lane, group)


def _build(engine: HFEngine, lane: Lane, group: Group | None) -> HFRunner:
    rank, num_ranks = (0, 1) if group is None else (group.rank, group.size)
    dtype, device = getattr(torch, engine.resolved_dtype().value), lane.device
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    shape = engine.model.shape().share(num_ranks)
    attention = choose_attention(engine.attention, engine.attention_needs(), shape, engine.block_size, device)
    model = load_model(engine.model, device, dtype, engine.seed)
    if group is not None:
        cut(model, group)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    linear = engine.resolved_linear()
    if linear is Linear.native:
        pack_linear_layers(model)
    if engine.compile_layers:
        compile_layers(model)
    num_blocks = engine.num_blocks()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of what was cut off
        _check_device_memory(engine, device)
    pool = TorchKVPool.allocate(num_blocks, engine.block_size, shape, device, dtype)
    if lane.num_multiprocessors is not None:
        pool.copy_on(lane.new_stream())
    max_context_tokens = min(shape.max_context_tokens, model.config.get_text_config().max_position_embeddings)
    if engine.graph_chunk_tokens and attention.attention not in REPLAYS_CHUNKS:
        raise ValueError(
            f"engine.graph_chunk_tokens={engine.graph_chunk_tokens}: engine.attention=auto came to "
            f"{attention.attention.value}, which plans each chunk on the host; must be 0"
        )
    return HFRunner(
        model=model,
        pool=pool,
        num_parameters=num_parameters,
        lane=lane,
        backend=attention.make(pool, max_context_tokens),
        sampler=Sampler(engine.temperature, engine.top_k, engine.top_p, engine.seed) if rank == 0 else _UNHEARD,
        max_context_tokens=max_context_tokens,
        stop_token_ids=stop_token_ids(engine.model, model),
        num_host_blocks=engine.num_host_blocks,
        num_sharing=engine.num_sharing,
        attention_passed_over=attention.passed_over,
        linear=linear.value,
        has_compiled_layers=engine.compile_layers,
        graph_sequences=engine.resolved_graph_sequences(attention.attention),
        graph_chunk_tokens=engine.graph_chunk_tokens,
        is_traceable=group is None and not engine.compile_layers,
    )


def _check_device_memory(engine: HFEngine, device: torch.device) -> None:
    free_bytes, _ = torch.cuda.mem_get_info(device)
    needed_bytes = engine.num_blocks() * engine.kv_bytes_per_block() // engine.tensor_parallel
    if needed_bytes > free_bytes:
        raise ValueError(
            f"engine.kv_memory_gib={engine.kv_memory_gib:.3g}: {device} has {free_bytes / GIB:.1f} GiB left for it"
        )
