"""The paged KV memory of an instance, which its peers on the same machine can write into."""

import itertools
import os
import pickle
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from tetribench.engine.base import KVPool, Region
from tetribench.engine.model import ModelShape
from tetribench.engine.native.copies import copy_native, why_not_native
from tetribench.engine.spans import Spans

_PAGE_BYTES = 4096
_pool_numbers = itertools.count()
_pools_of_this_process: "weakref.WeakValueDictionary[str, TorchKVPool]" = weakref.WeakValueDictionary()


class PoolHandle(msgspec.Struct, frozen=True):
    """Where a pool lies: behind a file descriptor of its owner (CPU), or in a CUDA IPC message."""

    name: str
    pid: int
    file_descriptor: int
    shape: tuple[int, ...]
    dtype: str
    cuda_ipc: bytes


class TorchKVPool(KVPool):
    """Keys and values of all blocks in one tensor `[num_blocks + 1, layers, 2, block_size, kv_heads, head_size]`.

    The block comes first so that a block, with all its layers, is one contiguous piece: a transfer is one copy for each
    run of neighbouring blocks. With the layer first it is `2 * layers` pieces a block: 3 to 4 times slower for the tiny
    OPT, while gathering one layer's blocks for attention takes the same time in both layouts.

    The last block is scratch: padding rows write there, short block tables are filled up with it, and it is never
    handed out. `layers` are views of each layer's keys and values, `vectors` of all key and value vectors of a token,
    `flat` of all but the scratch block as bytes.

    On the CPU the memory is an anonymous shared file (memfd), which ends with the processes that use it.
    """

    def __init__(self, memory: Tensor, name: str, pid: int, file_descriptor: int) -> None:
        self.memory = memory
        self.num_blocks = memory.shape[0] - 1
        self.block_size = memory.shape[3]
        self.block_bytes = memory[0].nbytes
        self.vectors = memory.view(-1, memory.shape[4] * memory.shape[5])
        self.flat = memory[: self.num_blocks].view(-1).view(torch.uint8)
        self.layers = [(memory[:, layer, 0], memory[:, layer, 1]) for layer in range(memory.shape[1])]
        self._name = name
        self._pid = pid
        self._file_descriptor = file_descriptor
        self._copy_stream = _new_stream(memory.device) if memory.is_cuda else None

    @property
    def scratch_block(self) -> int:
        return self.num_blocks

    @property
    def slots_per_block(self) -> int:
        """From a token vector of one block to the same one of the next."""
        return self.memory.shape[1] * 2 * self.block_size

    @property
    def scratch_slot(self) -> int:
        return self.scratch_block * self.slots_per_block

    @classmethod
    def allocate(
        cls, num_blocks: int, block_size: int, shape: ModelShape, device: torch.device, dtype: torch.dtype
    ) -> "TorchKVPool":
        """Reserve the memory and touch all of it, so that no request pays for a page fault."""
        sizes = (num_blocks + 1, shape.num_layers, 2, block_size, shape.num_kv_heads, shape.head_size)
        name = f"{os.getpid()}-{next(_pool_numbers)}"
        if device.type == "cuda":
            pool = cls(torch.zeros(sizes, device=device, dtype=dtype), name, os.getpid(), -1)
        else:
            file_descriptor = os.memfd_create("tetribench-kv")
            os.ftruncate(file_descriptor, _num_values(sizes) * dtype.itemsize)
            pool = cls(_map_file(os.getpid(), file_descriptor, sizes, dtype), name, os.getpid(), file_descriptor)
            weakref.finalize(pool, os.close, file_descriptor)
            pool.memory.zero_()
            why_not_native()  # compiled now, not in the first transfer
        _pools_of_this_process[name] = pool
        return pool

    def handle(self) -> bytes:
        """For one peer: on CUDA every peer needs a handle of its own, and the owner must outlive them."""
        memory = self.memory
        ipc = bytes(ForkingPickler.dumps(memory)) if memory.is_cuda else b""
        dtype = str(memory.dtype).removeprefix("torch.")
        return msgspec.msgpack.encode(
            PoolHandle(self._name, self._pid, self._file_descriptor, tuple(memory.shape), dtype, ipc)
        )

    def attach(self, handle: bytes) -> "TorchKVPool":
        """Map a peer's pool; a pool of this very process is handed back itself."""
        peer = msgspec.msgpack.decode(handle, type=PoolHandle)
        local = _pools_of_this_process.get(peer.name) if peer.pid == os.getpid() else None
        if local is not None:
            return local
        if peer.cuda_ipc:
            return TorchKVPool(pickle.loads(peer.cuda_ipc), peer.name, peer.pid, -1)
        memory = _map_file(peer.pid, peer.file_descriptor, peer.shape, getattr(torch, peer.dtype))
        memory.view(-1)[:: _PAGE_BYTES // memory.element_size()].sum()  # fault the pages in now, not in a transfer
        return TorchKVPool(memory, peer.name, peer.pid, peer.file_descriptor)

    @property
    def num_bytes(self) -> int:
        return self.num_blocks * self.block_bytes

    @property
    def region(self) -> Region:
        memory = self.memory
        device = memory.device.index if memory.is_cuda else None
        return Region(memory.data_ptr(), self.num_bytes, device)

    def copy_to(self, peer: KVPool, spans: Spans) -> None:
        assert isinstance(peer, TorchKVPool), "both ends of a copy are pools of this engine"
        assert peer.memory.shape[1:] == self.memory.shape[1:], "both ends of a copy serve the same model"
        self._copy(self.flat, peer.flat, spans)

    def gather(self, buffer: memoryview, spans: Spans) -> None:
        self._copy(self.flat, torch.frombuffer(buffer, dtype=torch.uint8), spans, is_read_next=True)

    def scatter(self, buffer: memoryview, spans: Spans) -> None:
        self._copy(torch.frombuffer(buffer, dtype=torch.uint8), self.flat, spans)

    def copy_on(self, stream: torch.cuda.Stream) -> None:
        """Copies are launched there from now on, on a GPU of which this pool's engine has a part."""
        self._copy_stream = stream

    def _copy(self, source: Tensor, target: Tensor, spans: Spans, is_read_next: bool = False) -> None:
        if self._copy_stream is None:
            copy_spans(source, target, spans, is_read_next)
            return
        with torch.cuda.stream(self._copy_stream):  # not behind the forward passes, which are on another stream
            copy_spans(source, target, spans)
        self._copy_stream.synchronize()

    def pin(self, buffer: memoryview) -> Callable[[], None]:
        if not self.memory.is_cuda:
            return lambda: None
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        address = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
        torch.cuda.check_error(int(runtime.cudaHostRegister(address, buffer.nbytes, 0)))
        return partial(runtime.cudaHostUnregister, address)


def copy_spans(source: Tensor, target: Tensor, spans: Spans, is_read_next: bool = False) -> None:
    """Between two memories as bytes, one after the other; on CUDA the copies are only launched.

    Spans may meet what others of them have written, or will read; none may overlap its own target.
    """
    assert spans.lie_within(source.numel(), target.numel()), "a copy from or to outside of the memory"
    ways = target.data_ptr() + spans.rows[:, 1] - source.data_ptr() - spans.rows[:, 0]
    assert np.all(abs(ways) >= spans.rows[:, 2]), "a copy onto itself"
    if why_by_torch(target.device if target.is_cuda else source.device) is None:
        copy_native(source.data_ptr(), target.data_ptr(), spans, is_read_next)
        return
    for start, to, num_bytes in spans:
        target[to : to + num_bytes].copy_(source[start : start + num_bytes], non_blocking=True)


def why_by_torch(device: torch.device) -> str | None:
    """The reason why KV in a memory on `device` is copied by a call of torch for each span; None where all are one call
    of C."""
    return "C copies within host memory only" if device.type == "cuda" else why_not_native()


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _num_values(sizes: tuple[int, ...]) -> int:
    return torch.Size(sizes).numel()


def _map_file(pid: int, file_descriptor: int, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    path = f"/proc/{pid}/fd/{file_descriptor}"
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists resolves the link, which leads to no file
        raise ProcessLookupError(f"process {pid} and its KV memory are gone")
    return torch.from_file(path, shared=True, size=_num_values(sizes), dtype=dtype).view(sizes)
