"""The engine of an instance of several ranks, of which this process is the first: it schedules, the others follow."""

import asyncio
from dataclasses import replace

from tetribench.engine.base import Batch, Engine, OnLayer
from tetribench.engine.hf.build import build_runner, device_of
from tetribench.engine.hf.parallel.follower import Assignment
from tetribench.engine.hf.parallel.followers import Followers, RankLost
from tetribench.engine.hf.parallel.frames import encode
from tetribench.engine.hf.parallel.group import Group, new_store
from tetribench.engine.hf.parallel.pool import PoolOfRanks
from tetribench.engine.hf.schema import HFEngine


class ParallelRunner(Engine):
    """`engine` on `engine.tensor_parallel` ranks. Raises RankLost where one of them does not come up."""

    pool: PoolOfRanks

    def __init__(self, engine: HFEngine, device_index: int | None) -> None:
        size, store = engine.tensor_parallel, new_store()
        self._followers = Followers([Assignment(engine, device_index, rank, store.port) for rank in range(1, size)])
        try:
            self._group = Group(store, 0, size, device_of(engine, device_index, 0))
            self._own = build_runner(engine, device_index, self._group)
            own_handles, peers_handles = self._followers.handles()
            first = self._own.pool
            self.pool = PoolOfRanks([first, *map(first.attach, own_handles)], peers_handles)
        except RuntimeError as error:
            lost = self._followers.lost_soon()
            self._followers.close()
            raise error if lost is None else RankLost(lost) from error
        except BaseException:
            self._followers.close()
            raise
        self.info = replace(
            self._own.info,
            block_bytes=self.pool.block_bytes,
            num_parameters=engine.model.shape().num_parameters,
            num_devices=size,
        )

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        """A layer is told of with the next one, for which the sum over all ranks was waited for.

        The last sum says that all have done what came before. Without a pass they meet for it, or a link would write
        into blocks that another rank has not yet swapped out.
        """
        tell = None
        if on_layer is not None:

            def tell(layer: int) -> None:
                if layer:
                    on_layer(layer - 1)

        try:
            self._followers.send(encode(batch, self.info.block_size))
            tokens = await self._own.run(batch, tell)
            if not batch.num_rows:
                await asyncio.to_thread(self._group.meet)
            return tokens
        except (OSError, RuntimeError) as error:
            lost = self._followers.lost_soon()
            if lost is None:
                raise
            raise RankLost(lost) from error

    async def watch(self) -> None:
        await self._followers.watch()

    def close(self) -> None:
        if self._followers.lost() is not None:
            self._group.abort()  # what is being computed would wait for it
        self._own.close()
        self._followers.close()
        self._group.close()
