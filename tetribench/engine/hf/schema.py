"""The real engine as the user configures it, and all that can be refused before a process starts. No torch here."""

import json
from copy import copy
from enum import Enum
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from tetribench.core.units import GIB
from tetribench.engine.base import Engine
from tetribench.engine.hf.attention.options import Attention, AttentionNeeds, why_not
from tetribench.engine.hf.compiled import why_not_compiled
from tetribench.engine.hf.graph_options import check_chunk_tokens, check_sequences, sequences_by_default
from tetribench.engine.hf.green.contexts import is_installed
from tetribench.engine.hf.green.split import first_part
from tetribench.engine.hf.parallel.legal import why_not_parallel
from tetribench.engine.hf.supported import unsupported_reason
from tetribench.engine.host_memory import available_bytes, check_host_memory, host_blocks
from tetribench.engine.model import Architecture, Model
from tetribench.engine.native.compiler import why_no_compiler
from tetribench.engine.sharing import MPS_CONTROL, Sharing

if TYPE_CHECKING:
    from tetribench.core.clock import Clock

CPU_KV_MEMORY_GIB = 0.5
"""Enough for the tiny models' workloads; two instances fit on a laptop."""

CPU_HOST_MEMORY_GIB = 0.5
GPU_HOST_MEMORY_GIB = 4.0

GPU_MEMORY_SHARE = 0.9

_GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")


class Device(Enum):
    """`auto` is CUDA where there is a device for it, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class DType(Enum):
    """`auto` is float32 on the CPU; on CUDA float16 for OPT, which was trained in it, and bfloat16 for the rest."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"

    @property
    def num_bytes(self) -> int:
        assert self is not DType.auto
        return 4 if self is DType.float32 else 2


class Linear(Enum):
    """What computes linear layers; `auto` is `native` for float32 on a CPU with a C compiler, else `torch`.

    `native` lays their weights out once, as its kernel reads them; a head that shares its weights with the embedding
    then has a copy of its own.
    """

    auto = "auto"
    torch = "torch"
    native = "native"


class HFEngine:
    """A model on a device, run through transformers with paged attention of our own.

    `kv_memory_gib` is the KV memory on one device, in equal parts for the instances on it; by default 0.5 GiB on the
    CPU, and on a GPU what their weights leave of 90 % of its memory (vLLM's rule).

    An instance that swaps has `host_memory_gib` of host memory beside that; by default 0.5 GiB on the CPU and 4 GiB on
    a GPU (vLLM's). `temperature=0` decodes greedily; above it, a token's draw depends on `seed`, the request and the
    position only. `seed` also draws the weights of a model that has none.

    `fa3_library` is the file with FlashAttention 3's operators from a vLLM wheel that was built for the installed torch
    (`vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so`).

    Greedy decodes of up to `graph_sequences` sequences are replayed: as CUDA graphs, by default up to 256, but for
    `attention=sdpa`, which would gather every context at full length; on the CPU as a list of calls, by
    default up to 64 with `attention=native`.
    So are, with `graph_chunk_tokens`, passes over just so many rows of prompts, padding included: give it
    `prefill.chunk.chunk_size`. It saves what the host does beside the kernels, which holds up small models and an
    instance beside another in one process, and takes the time of ten to fifteen such passes when the engine starts; it
    has not yet run on a GPU.

    With `compile_layers` decoder layers go through `torch.compile`, in an engine's first passes (a minute on a CPU,
    where it makes passes a quarter slower; it has not yet run on a GPU, whose small kernels it would join).

    With `tensor_parallel` above 1 an instance has as many ranks, each a process with a device of its own (on the CPU a
    core, where there are enough), a share of every layer and of its KV heads; they add up over NCCL on GPUs, over gloo
    on the CPU. For OPT and Llama. `kv_memory_gib` is that of all ranks together. A rank loads the whole model before it
    keeps its share. On GPUs, graphs that hold the ranks' sums and copies between GPUs of two instances are written and
    have not yet run.
    """

    def __init__(
        self,
        *,
        model: Model,
        device: Device = Device.auto,
        dtype: DType = DType.auto,
        kv_memory_gib: float | None = None,
        host_memory_gib: float | None = None,
        block_size: int = 16,
        attention: Attention = Attention.auto,
        fa3_library: str | None = None,
        linear: Linear = Linear.auto,
        compile_layers: bool = False,
        graph_sequences: int | None = None,
        graph_chunk_tokens: int = 0,
        tensor_parallel: int = 1,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        if block_size < 1:
            raise ValueError(f"engine.block_size={block_size}: must be at least 1 token")
        if kv_memory_gib is not None and kv_memory_gib <= 0:
            raise ValueError(f"engine.kv_memory_gib={kv_memory_gib}: must be above 0, or null")
        check_host_memory(host_memory_gib)
        if temperature < 0:
            raise ValueError(f"engine.temperature={temperature}: must be 0 (greedy) or above")
        if not 0 < top_p <= 1:
            raise ValueError(f"engine.top_p={top_p}: must be in (0, 1]")
        if top_k is not None and top_k < 1:
            raise ValueError(f"engine.top_k={top_k}: must be at least 1, or null for no limit")
        check_sequences(graph_sequences, attention, temperature)
        check_chunk_tokens(graph_chunk_tokens, attention, temperature, tensor_parallel)
        if tensor_parallel < 1:
            raise ValueError(f"engine.tensor_parallel={tensor_parallel}: must be at least 1")
        self.model = model
        self.device = device
        self.dtype = dtype
        self.kv_memory_gib = kv_memory_gib
        self.host_memory_gib = host_memory_gib
        self.num_host_blocks = 0
        self.num_sharing = 1
        """Instances on the device, each with a copy of the weights."""
        self.num_first_multiprocessors: int | None = None
        """Those of the first of two instances on a GPU that is divided."""
        self.part = 0
        """Which of the instances on its device it is."""
        self.block_size = block_size
        self.attention = attention
        self.fa3_library = fa3_library
        self.linear = linear
        self.compile_layers = compile_layers
        self.graph_sequences = graph_sequences
        self.graph_chunk_tokens = graph_chunk_tokens
        self.tensor_parallel = tensor_parallel
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.seed = seed

    def resolved_device(self) -> Device:
        """The device that will run it. Raises ValueError where CUDA was asked for and there is none."""
        if self.device is Device.cpu:
            return Device.cpu
        has_cuda = any(Path(name).exists() for name in _GPU_FILES) and _torch_sees_cuda()
        if self.device is Device.cuda and not has_cuda:
            raise ValueError("device=cuda: no CUDA device was found; legal here are cpu and auto")
        return Device.cuda if has_cuda else Device.cpu

    def resolved_dtype(self) -> DType:
        if self.dtype is not DType.auto:
            return self.dtype
        if self.resolved_device() is Device.cpu:
            return DType.float32
        config = self._local_config()
        is_opt = config.get("model_type") == "opt" if config else self.model.architecture is Architecture.opt
        return DType.float16 if is_opt else DType.bfloat16

    def attention_needs(self) -> AttentionNeeds:
        return AttentionNeeds(
            is_cuda=self.resolved_device() is Device.cuda,
            dtype=self.resolved_dtype().value,
            head_size=self.model.shape().head_size,
            fa3_library=self.fa3_library,
        )

    def resolved_linear(self) -> Linear:
        """Raises ValueError for what cannot compute them."""
        reason = self._why_not_native_linear()
        if self.linear is Linear.auto:
            return Linear.native if reason is None else Linear.torch
        if self.linear is Linear.native and reason is not None:
            raise ValueError(f"engine.linear={self.linear.value}: {reason}; legal here are auto and torch")
        return self.linear

    def _why_not_native_linear(self) -> str | None:
        if self.compile_layers:
            return "torch.compile cannot look into it (engine.compile_layers=true)"
        if self.resolved_device() is not Device.cpu or self.resolved_dtype() is not DType.float32:
            return "is for float32 on the CPU"
        return why_no_compiler()

    def resolved_graph_sequences(self, attention: Attention) -> int:
        """With the backend that `auto` came to."""
        if self.graph_sequences is not None:
            return self.graph_sequences
        is_cuda = self.resolved_device() is Device.cuda
        is_plain = is_cuda or (self.tensor_parallel == 1 and not self.compile_layers)
        return sequences_by_default(attention, is_cuda) if self.temperature == 0 and is_plain else 0

    def _check_attention(self) -> None:
        reason = why_not(self.attention, self.attention_needs())
        if reason is not None:
            raise ValueError(f"engine.attention={self.attention.value}: {reason}; legal here are auto and sdpa")
        if self.graph_chunk_tokens and self.attention is Attention.auto and self.resolved_device() is Device.cpu:
            reason = why_not(Attention.native, self.attention_needs())
            if reason is not None:
                raise ValueError(
                    f"engine.graph_chunk_tokens={self.graph_chunk_tokens}: on the CPU it needs attention=native, which "
                    f"{reason}; must be 0"
                )

    def _check_compiled(self) -> None:
        reason = why_not_compiled(self.resolved_device() is Device.cuda) if self.compile_layers else None
        if self.compile_layers and self.tensor_parallel > 1:
            reason = f"is not for several ranks (engine.tensor_parallel={self.tensor_parallel})"
        if reason is not None:
            raise ValueError(f"engine.compile_layers=true: {reason}; must be false")

    def kv_bytes_per_block(self) -> int:
        return self.model.shape().kv_bytes_per_token(self.resolved_dtype().num_bytes) * self.block_size

    def num_blocks(self) -> int:
        assert self.kv_memory_gib is not None, "asked for blocks before `sized`"
        return int(self.kv_memory_gib * GIB) // self.kv_bytes_per_block() // self.num_sharing

    @property
    def is_noisy(self) -> bool:
        return True

    @property
    def has_parts(self) -> bool:
        return self.tensor_parallel > 1

    def in_slot(self, slot: str) -> "HFEngine":
        return self

    def sized(self, num_devices: int, num_sharing: int = 1) -> "HFEngine":
        """This engine with its KV memory settled: as much on each device, whether one instance has it or `num_sharing`.

        Raises a one-line ValueError for what cannot work; no process has been started by then.
        """
        if not self.model.is_random:
            self.model.location()
        reason = unsupported_reason(self._local_config())
        if reason is not None:
            raise ValueError(f"model={self.model.name}: {reason}")
        self._check_attention()
        self.resolved_linear()
        self._check_compiled()
        self._check_ranks()
        device_bytes, place = self._device_memory(num_devices)
        rank_bytes = self.model.shape().share(self.tensor_parallel).num_parameters * self.resolved_dtype().num_bytes
        weight_bytes = num_sharing * self.tensor_parallel * rank_bytes
        left_gib = (device_bytes - weight_bytes) / GIB
        by_default = CPU_KV_MEMORY_GIB if self.resolved_device() is Device.cpu else left_gib
        settled = copy(self)
        settled.kv_memory_gib = by_default if self.kv_memory_gib is None else self.kv_memory_gib
        if settled.kv_memory_gib > left_gib:
            whom = "each" if num_sharing == 1 else f"every {num_sharing}"
            raise ValueError(
                f"engine.kv_memory_gib={settled.kv_memory_gib:.3g}: {num_devices * num_sharing} instances on {place} "
                f"leave {left_gib:.3g} GiB to {whom} beside weights of {weight_bytes / GIB:.3g} GiB; must be within it"
            )
        if settled.num_blocks() < 1:
            raise ValueError(
                f"engine.kv_memory_gib={settled.kv_memory_gib:.3g}: holds no block of engine.block_size="
                f"{self.block_size} tokens, which takes {self.kv_bytes_per_block() / GIB:.3g} GiB"
            )
        return settled

    def with_host_memory(self) -> "HFEngine":
        by_default = CPU_HOST_MEMORY_GIB if self.resolved_device() is Device.cpu else GPU_HOST_MEMORY_GIB
        memory_gib = by_default if self.host_memory_gib is None else self.host_memory_gib
        available_gib = available_bytes() / GIB
        if memory_gib > available_gib:
            raise ValueError(
                f"engine.host_memory_gib={memory_gib:.3g}: this machine has {available_gib:.3g} GiB available; must be "
                f"at most that"
            )
        swapping = copy(self)
        swapping.num_host_blocks = host_blocks(memory_gib, self.kv_bytes_per_block())
        return swapping

    @property
    def runs_on_a_core(self) -> bool:
        return self.resolved_device() is Device.cpu

    def shared(self, num_instances: int, sharing: Sharing, first_share: float = 0.5) -> "HFEngine":
        said = f"system.tetri.sharing={sharing.value}"
        if self.tensor_parallel > 1:
            raise ValueError(
                f"{said}: an instance with engine.tensor_parallel={self.tensor_parallel} has several devices; must be "
                f"none, or engine.tensor_parallel=1"
            )
        if sharing is Sharing.mps and self.resolved_device() is Device.cpu:
            raise ValueError(f"{said}: MPS is of NVIDIA's GPUs; must be none or time_slicing with device=cpu")
        if sharing is Sharing.mps and which(MPS_CONTROL) is None:
            raise ValueError(f"{said}: there is no program {MPS_CONTROL} here; must be none or time_slicing")
        part = copy(self)
        part.num_sharing = num_instances
        if sharing is Sharing.green_contexts:
            part.num_first_multiprocessors = self._divided(first_share)
        return part

    def in_part(self, part: int) -> "HFEngine":
        own = copy(self)
        own.part = part
        return own

    def _divided(self, first_share: float) -> int:
        """How many multiprocessors the first of two instances has."""
        said = f"system.tetri.sharing={Sharing.green_contexts.value}"
        if self.resolved_device() is Device.cpu:
            raise ValueError(f"{said}: they are of NVIDIA's GPUs; must be none or time_slicing with device=cpu")
        if not is_installed():
            raise ValueError(
                f"{said}: the package cuda-bindings is not installed (pip install 'tetribench[green]'); must be none, "
                f"time_slicing or mps"
            )
        import torch

        return first_part(torch.cuda.get_device_properties(0).multi_processor_count, first_share)

    @property
    def num_gpus(self) -> int | None:
        """Of this machine; None where the CPU runs it, which has room for any number."""
        if self.resolved_device() is Device.cpu:
            return None
        import torch

        return torch.cuda.device_count()

    def _check_ranks(self) -> None:
        if self.tensor_parallel == 1:
            return
        family = self._local_config().get("model_type", self.model.architecture.value)
        reason = why_not_parallel(self.tensor_parallel, self.model, family, self.num_gpus)
        if reason is not None:
            raise ValueError(f"engine.tensor_parallel={self.tensor_parallel}: {reason}")

    def _device_memory(self, num_devices: int) -> tuple[float, str]:
        """Bytes that the instances on one of `num_devices` devices may take, which is as many GPUs as an instance has
        ranks, and where that memory is. Raises ValueError where there are fewer GPUs."""
        num_gpus, num_needed = self.num_gpus, num_devices * self.tensor_parallel
        if num_gpus is None:
            return available_bytes() / num_devices, "this machine"
        if num_needed > num_gpus:
            raise ValueError(
                f"device=cuda: instances on {num_needed} GPUs, and this machine has {num_gpus}; must be fewer "
                f"(system.NAME.num_instances, task.num_busy, engine.tensor_parallel), or two on each "
                f"(system.tetri.sharing=time_slicing, mps, green_contexts), or device=cpu"
            )
        import torch

        gpu_bytes = GPU_MEMORY_SHARE * torch.cuda.get_device_properties(0).total_memory
        return self.tensor_parallel * gpu_bytes, f"{num_gpus} GPU(s)"

    def build(self, clock: "Clock", device: int | None) -> Engine:
        """Load the model and reserve the KV memory in this process, or this one and those of the other ranks; `device`
        is the CUDA one, modulo their number, or counts groups of them."""
        if self.tensor_parallel > 1:
            from tetribench.engine.hf.parallel.runner import ParallelRunner

            return ParallelRunner(self, device)
        from tetribench.engine.hf.build import build_runner

        return build_runner(self, device)

    def _local_config(self) -> dict[str, Any]:
        """The model's own `config.json`; empty for random weights and for packages, which carry GGUF files."""
        if self.model.path is None:
            return {}
        config = Path(self.model.path) / "config.json"
        loaded: dict[str, Any] = json.loads(config.read_text()) if config.is_file() else {}
        return loaded


def _torch_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
