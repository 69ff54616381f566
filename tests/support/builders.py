"""Requests, sequences, loads, facts of engines and systems with plain policies."""

from typing import Any

from tetribench.colocated.mixed import MixedPolicies
from tetribench.colocated.prefill_first import PrefillFirstPolicies
from tetribench.control.flip import NoFlip
from tetribench.control.route import LeastQueuedTokens, LeastRequests
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.decode.admit import Greedy
from tetribench.decode.scheduler import DecodePolicies
from tetribench.engine.base import EngineInfo
from tetribench.kv.links import LinkSpeed, Memory
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.prefill.order import FCFS
from tetribench.prefill.predict import Oracle
from tetribench.prefill.scheduler import PrefillPolicies
from tetribench.systems.sarathi_like import SarathiLike
from tetribench.systems.tetri import Tetri
from tetribench.systems.vllm_like import VllmLike


def request(id: int = 0, prompt: int = 10, output: int = 5, arrival_s: float = 0.0, **others: Any) -> Request:
    return Request(id=id, arrival_s=arrival_s, num_prompt_tokens=prompt, max_output_tokens=output, **others)


def sequence(
    id: int = 0, prompt: int = 10, *, low: int = 0, high: int = 200, produced: int = 0, num_blocks: int = 0
) -> Sequence:
    """A sequence with `produced` tokens of its response and `num_blocks` blocks, whose ids mean nothing."""
    made = Sequence(request(id, prompt, 10_000), LengthRange(low, high), block_ids=list(range(num_blocks)))
    made.output_ids = [0] * produced
    made.num_computed = prompt + produced - 1 if produced else 0
    return made


def load(num_free_tokens: int = 1000, *, time_s: float = 0.0, num_heavy: int = 0, num_light: int = 0) -> InstanceLoad:
    return InstanceLoad(
        time_s=time_s,
        num_total_tokens=1000,
        num_free_tokens=num_free_tokens,
        num_heavy=num_heavy,
        num_light=num_light,
    )


def info(
    num_blocks: int = 1000,
    block_size: int = 16,
    stop_token_ids: tuple[int, ...] = (),
    num_host_blocks: int = 0,
    num_layers: int = 1,
) -> EngineInfo:
    return EngineInfo(
        num_blocks=num_blocks,
        num_host_blocks=num_host_blocks,
        block_size=block_size,
        stop_token_ids=stop_token_ids,
        max_context_tokens=10**6,
        block_bytes=100 * block_size,
        num_layers=num_layers,
        device="none",
        dtype="none",
        num_parameters=1,
        attention="none",
        copy_bytes_per_s=1e6,
    )


DECODE_OPTIONS = ("admit", "max_num_seqs", "watermark", "preemption", "recompute_chunk_size")


def tetri(**changes: Any) -> Tetri:
    """The system with plain policies; `changes` are arguments of any of its three parts."""
    prefill: dict[str, Any] = {
        "order": FCFS(),
        "chunk": Chunker(chunk_size=32),
        "predict": Oracle(),
        "dispatch": PowerOfTwo(),
    }
    decode: dict[str, Any] = {"admit": Greedy()}
    rest: dict[str, Any] = {
        "route": LeastQueuedTokens(),
        "link": LinkSpeed(bandwidth_bytes_per_s=1e6, latency_s=1e-4),
        "flip": NoFlip(),
    }
    for name, value in changes.items():
        part = prefill if name in (*prefill, "granularity", "seed", "predict_mode") else rest
        part = decode if name in DECODE_OPTIONS else part
        part[name] = value
    rest["link"] = Memory(speed=rest["link"])  # what is varied in virtual time is the link's speed
    return Tetri(prefill=PrefillPolicies(**prefill), decode=DecodePolicies(**decode), **rest)


def vllm_like(num_instances: int = 1, **scheduler: Any) -> VllmLike:
    return VllmLike(scheduler=PrefillFirstPolicies(**scheduler), route=LeastRequests(), num_instances=num_instances)


def sarathi_like(num_instances: int = 1, **scheduler: Any) -> SarathiLike:
    return SarathiLike(scheduler=MixedPolicies(**scheduler), route=LeastRequests(), num_instances=num_instances)
