"""NIXL's agent as the link uses it. NVIDIA's library is imported when the first agent is made."""

import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tetribench.engine.base import KVPool, Region
from tetribench.engine.spans import Spans

_BACKEND = "UCX"


class Reachable(msgspec.Struct, frozen=True):
    """A pool as a peer's agent can reach it."""

    metadata: bytes
    address: int
    num_bytes: int
    cuda_device: int | None

    @property
    def region(self) -> Region:
        return Region(self.address, self.num_bytes, self.cuda_device)


_ATTENTION_S = 1e-3
"""An agent looks after what peers want of it that often."""


class Agent:
    """The agent of one pool. Its calls block, so they are made on the link's thread, one after the other.

    A peer's first transfer waits for this end, and so does every one where the transport has no one-sided copies.
    NIXL's own thread for that never sleeps: on a machine whose instances compute on its cores it takes one from them.

    NIXL's errors become ConnectionError.
    """

    def __init__(self, pool: KVPool) -> None:
        logging.getLogger("nixl").setLevel(logging.WARNING)
        from nixl_cu13 import nixl_agent, nixl_agent_config, nixl_thread_sync_t

        strict = nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT  # a forgotten transfer is released by any thread
        config = nixl_agent_config(enable_prog_thread=False, backends=[_BACKEND], sync_mode=strict)
        self._agent: Any = nixl_agent(f"{os.getpid()}-{os.urandom(8).hex()}", config)
        assert pool.region is not None, "refused before"
        self._region = region = pool.region
        described = [(region.address, region.num_bytes, region.cuda_device or 0, "")]
        self._registered = self._agent.register_memory(described, _kind(region), backends=[_BACKEND])
        metadata = self._agent.get_agent_metadata()
        self.reachable = Reachable(metadata, region.address, region.num_bytes, region.cuda_device)
        self._is_closed = threading.Event()
        self._attentive = threading.Thread(target=self._attend, name="kv-link-nixl", daemon=True)
        self._attentive.start()

    def _attend(self) -> None:
        while not self._is_closed.wait(_ATTENTION_S):
            with suppress(ConnectionError), _as_connection_errors():
                self._agent.get_new_notifs()

    def meet(self, peer: Reachable) -> str:
        """The peer's name, once this agent knows it."""
        with _as_connection_errors():
            name: bytes = self._agent.add_remote_agent(peer.metadata)
        return name.decode()

    def leave(self, name: str) -> None:
        """Forget a peer. NIXL may have done so itself, when the peer died."""
        with suppress(ConnectionError), _as_connection_errors():
            self._agent.remove_remote_agent(name)

    def post(self, verb: str, name: str, peer: Region, pieces: Spans) -> Any:
        """Begin a `WRITE` or `READ` between `source` here and `target` there: the transfer."""
        here = _descriptors(self._agent, self._region, pieces.rows[:, [0, 2]])
        there = _descriptors(self._agent, peer, pieces.rows[:, [1, 2]])
        with _as_connection_errors():
            transfer = self._agent.initialize_xfer(verb, here, there, name)
            _check(self._agent.transfer(transfer))
        return transfer

    def is_under_way(self, transfer: Any) -> bool:
        with _as_connection_errors():
            return _check(self._agent.check_xfer_state(transfer)) == "PROC"

    def release(self, transfer: Any) -> None:
        """Give a transfer back; one that is under way is aborted, or, where it cannot be, kept until the end."""
        with suppress(ConnectionError), _as_connection_errors():
            self._agent.release_xfer_handle(transfer)

    def close(self) -> None:
        self._is_closed.set()
        self._attentive.join()
        self._agent.deregister_memory(self._registered, backends=[_BACKEND])


def _check(state: str) -> str:
    if state not in ("DONE", "PROC"):
        raise ConnectionError(f"NIXL: the transfer ended with {state}")
    return state


@contextmanager
def _as_connection_errors() -> Iterator[None]:
    try:
        yield
    except _errors() as error:
        raise ConnectionError(f"NIXL: {error}") from error


@cache
def _errors() -> tuple[type[Exception], ...]:
    known = vars(importlib.import_module("nixl_cu13._bindings")).values()
    return tuple(kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception))


def _kind(region: Region) -> str:
    return "DRAM" if region.cuda_device is None else "VRAM"


def _descriptors(agent: Any, region: Region, pieces: npt.NDArray[np.int64]) -> Any:
    """Of pieces `[number, 2]`, each an offset in `region` and a number of bytes."""
    rows = np.empty((len(pieces), 3), dtype=np.uint64)
    rows[:, 0] = region.address + pieces[:, 0]
    rows[:, 1] = pieces[:, 1]
    rows[:, 2] = region.cuda_device or 0
    return agent.get_xfer_descs(rows, _kind(region))
