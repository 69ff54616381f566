"""A link that checks what it copies."""

from collections.abc import Sequence as SequenceOf

from tests.support.engine import TaggedPool
from tetribench.core.clock import Clock
from tetribench.engine.base import Engine, Part
from tetribench.engine.spans import spans
from tetribench.kv.links import LinkFailed, LinkSpeed


class CheckingLink:
    """Sleeps for the link's time, then copies the slots; nobody may change either end meanwhile."""

    def __init__(self, engine: Engine, speed: LinkSpeed, clock: Clock) -> None:
        assert isinstance(engine.pool, TaggedPool)
        self._pool, self._speed, self._clock = engine.pool, speed, clock
        self._peers: dict[str, TaggedPool] = {}

    async def open(self) -> None:
        """There is nothing to reach."""

    def handle(self) -> bytes:
        return self._pool.handle()

    def connect(self, handles: dict[str, bytes]) -> None:
        self._peers |= {name: self._pool.attach(handle) for name, handle in handles.items()}

    def disconnect(self, name: str) -> None:
        self._peers.pop(name, None)

    async def move(
        self, to: str, source_ids: SequenceOf[int], target_ids: SequenceOf[int], part: Part | None = None
    ) -> int:
        if to not in self._peers:
            raise LinkFailed(f"{to} is gone")
        peer, pieces = self._peers[to], spans(source_ids, target_ids, self._pool.block_bytes, part)
        sources = [(piece.source, piece.num_bytes) for piece in pieces]
        targets = [(piece.target, piece.num_bytes) for piece in pieces]
        before = self._pool.contents(sources), peer.contents(targets)
        num_bytes = pieces.num_bytes
        await self._clock.sleep(self._speed.seconds(num_bytes))
        assert (self._pool.contents(sources), peer.contents(targets)) == before, "a block changed under its copy"
        self._pool.copy_to(peer, pieces)
        return num_bytes

    def close(self) -> None:
        """Nothing is held."""
