"""The KV memory of all ranks as one: what links move goes from each rank of one instance to the same one of another."""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf

import msgspec

from tetribench.engine.base import KVPool, Part, Region
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.spans import Span, Spans


class PoolOfRanks(KVPool):
    """Each of `parts` has its heads of every block; `handles` are those of the parts after the first, which lie in
    other processes and can be named to peers by their owners only.

    As bytes, a block has its layers one after the other, and a layer its ranks: that is what gather and scatter follow,
    wherever spans are cut.
    """

    def __init__(self, parts: SequenceOf[TorchKVPool], handles: SequenceOf[bytes]) -> None:
        self.parts = list(parts)
        self._handles = list(handles)
        self.block_bytes = sum(part.block_bytes for part in parts)
        self._layer_bytes = self.block_bytes // len(parts[0].layers)
        self._part_bytes = self._layer_bytes // len(parts)

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts)

    @property
    def region(self) -> Region | None:
        return None

    def handle(self) -> bytes:
        return msgspec.msgpack.encode([self.parts[0].handle(), *self._handles])

    def attach(self, handle: bytes) -> "PoolOfRanks":
        handles = msgspec.msgpack.decode(handle, type=list[bytes])
        first = self.parts[0]
        return PoolOfRanks([first.attach(one) for one in handles], handles[1:])

    def copy_to(self, peer: KVPool, spans: Spans) -> None:
        """Of whole layers: these are in each part at the same place."""
        assert isinstance(peer, PoolOfRanks) and len(peer.parts) == len(self.parts), "both ends have as many ranks"
        assert not (spans.rows % self._layer_bytes).any(), "links copy whole layers"
        own = Spans(spans.rows // len(self.parts))
        for part, target in zip(self.parts, peer.parts, strict=True):
            part.copy_to(target, own)

    def gather(self, buffer: memoryview, spans: Spans) -> None:
        found: list[list[Span]] = [[] for _ in self.parts]
        for source, target, num_bytes in spans:
            for part, place in self._places(source, num_bytes):
                found[part].append(Span(place.offset, target, place.num_bytes))
                target += place.num_bytes
        for one, own in zip(self.parts, found, strict=True):
            one.gather(buffer, Spans.of(own))

    def scatter(self, buffer: memoryview, spans: Spans) -> None:
        found: list[list[Span]] = [[] for _ in self.parts]
        for source, target, num_bytes in spans:
            for part, place in self._places(target, num_bytes):
                found[part].append(Span(source, place.offset, place.num_bytes))
                source += place.num_bytes
        for one, own in zip(self.parts, found, strict=True):
            one.scatter(buffer, Spans.of(own))

    def _places(self, start: int, num_bytes: int) -> Iterator[tuple[int, Part]]:
        """Where the bytes from `start` are, in their order: which part, and where in it."""
        while num_bytes:
            layer, within = divmod(start, self._layer_bytes)
            part, offset = divmod(within, self._part_bytes)
            size = min(num_bytes, self._part_bytes - offset)
            yield part, Part(layer * self._part_bytes + offset, size)
            start, num_bytes = start + size, num_bytes - size

    def pin(self, buffer: memoryview) -> Callable[[], None]:
        return self.parts[0].pin(buffer)
