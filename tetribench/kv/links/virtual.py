"""The link of virtual time: it moves nothing and takes as long as a link would."""

import itertools
from collections.abc import Sequence as SequenceOf
from weakref import WeakValueDictionary

from tetribench.core.clock import Clock
from tetribench.engine.base import Part
from tetribench.kv.links.base import LinkFailed
from tetribench.kv.links.speed import LinkSpeed

_link_numbers = itertools.count()
_links_of_this_process: "WeakValueDictionary[bytes, VirtualLink]" = WeakValueDictionary()


class VirtualLink:
    """Sleeps for the slower of the machine's own copy (`hardware.copy_latency_s`, `copy_bytes_per_s`) and the link's
    speed.

    An instance has one way in, as it has one way out: what several peers send it at once comes one after the other, in
    the order in which they began. (All instances of virtual time live in one process; of peers elsewhere nothing is
    known, and they are never waited for.)

    A medium is not modelled: for one that is slower than a copy, choose what was measured of it as
    `kv.speed.bandwidth_bytes_per_s` and `kv.speed.latency_s`.
    """

    def __init__(
        self,
        speed: LinkSpeed,
        clock: Clock,
        block_bytes: int,
        copy_bytes_per_s: float,
        copy_latency_s: float = 0.0,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._block_bytes = block_bytes
        self._copy = LinkSpeed(bandwidth_bytes_per_s=copy_bytes_per_s, latency_s=copy_latency_s)
        self._handles: dict[str, bytes] = {}
        self._handle = b"virtual-%d" % next(_link_numbers)
        self._way_in_free_s = 0.0
        _links_of_this_process[self._handle] = self

    async def open(self) -> None:
        """There is nothing to reach."""

    def handle(self) -> bytes:
        return self._handle

    def connect(self, handles: dict[str, bytes]) -> None:
        self._handles.update(handles)

    def disconnect(self, name: str) -> None:
        self._handles.pop(name, None)

    async def move(
        self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int], part: Part | None = None
    ) -> int:
        """Fails, as a real one does, for a peer that is not known or is forgotten meanwhile."""
        self._check(to)
        num_bytes = len(source_ids) * (part.num_bytes if part is not None else self._block_bytes)
        seconds = max(self._copy.seconds(num_bytes), self._speed.seconds(num_bytes))
        await self._clock.sleep_until(self._reserve(to, seconds))
        self._check(to)
        return num_bytes

    def _reserve(self, to: str, seconds: float) -> float:
        """Take the peer's way in for so long, from when it is free on; when that ends."""
        peer = _links_of_this_process.get(self._handles[to])
        if peer is None:
            return self._clock.now() + seconds
        peer._way_in_free_s = max(self._clock.now(), peer._way_in_free_s) + seconds
        return peer._way_in_free_s

    def _check(self, name: str) -> None:
        if name not in self._handles:
            raise LinkFailed(f"{name}: no such peer")

    def close(self) -> None:
        """Nothing is held."""
