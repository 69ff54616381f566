"""What the ranks of an instance add up together."""

import os
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroupGloo, TCPStore  # type: ignore[attr-defined]

HOST = "127.0.0.1"
_TIMEOUT = timedelta(seconds=300)
"""By so much ranks may come apart, at the most while they load their weights."""


def new_store() -> TCPStore:
    """Where ranks find each other, in the process of the first; the others need its `port`."""
    return TCPStore(HOST, 0, is_master=True, wait_for_workers=False)


def store_at(port: int) -> TCPStore:
    return TCPStore(HOST, port, is_master=False, wait_for_workers=False, timeout=_TIMEOUT)


class Group:
    """Rank `rank` of `size`, which compute on devices like `device`: gloo between CPUs, NCCL between GPUs.

    Not torch's default group, of which a process has one: several engines may be in a process. Made when all ranks
    make theirs.
    """

    def __init__(self, store: TCPStore, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self._store: TCPStore | None = store
        self._device = device
        self._backend: Any = (_nccl if device.type == "cuda" else _gloo)(store, rank, size)

    def add_up(self, tensor: Tensor) -> None:
        """Replace `tensor` by the sum of all ranks'. Raises RuntimeError where a rank is gone (gloo), or hangs until
        `abort` (NCCL)."""
        assert self._backend is not None, "closed"
        self._backend.allreduce([tensor]).wait()

    def meet(self) -> None:
        """Wait until all ranks have come here."""
        mark = torch.zeros(1, device=self._device)
        self.add_up(mark)
        mark.item()

    def abort(self) -> None:
        """End what waits for a rank that is gone."""
        if self._backend is not None:
            self._backend.abort()

    def close(self) -> None:
        """Give up threads and sockets; as late as when the interpreter ends, their destructors would end it badly."""
        self._backend = self._store = None


def _gloo(store: TCPStore, rank: int, size: int) -> Any:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it looks for the address of the machine's name
    return ProcessGroupGloo(store, rank, size, _TIMEOUT)


def _nccl(store: TCPStore, rank: int, size: int) -> Any:
    from torch.distributed import ProcessGroupNCCL

    options = ProcessGroupNCCL.Options()
    options._timeout = _TIMEOUT
    return ProcessGroupNCCL(store, rank, size, options)
