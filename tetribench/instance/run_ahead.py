"""A decode batch that stays as it is for many iterations, as one piece of work (virtual time)."""

from tetribench.core.events import Event, EventKind
from tetribench.core.messages import Progress, TokenOutput, TokenRun
from tetribench.engine.base import Batch
from tetribench.engine.foreseen import Foreseen
from tetribench.instance.scheduler import Scheduler


class RunAhead:
    """The iterations of `batch` from `started_s` to the last that is foreseen.

    The scheduler's state is brought up to the present whenever somebody looks at it; tokens and events of the
    iterations before the last come in one piece, with the last or when they are asked for. All is as if each iteration
    had been waited for.
    """

    def __init__(
        self, scheduler: Scheduler, batch: Batch, foreseen: Foreseen, started_s: float, num_used_blocks: int
    ) -> None:
        self.foreseen = foreseen
        self._scheduler = scheduler
        self._batch = batch
        self._started_s = started_s
        self._num_used_blocks = [num_used_blocks]
        """By iteration that has begun."""
        self._num_ended = 0
        self._num_delivered = 0

    def catch_up(self) -> list[float]:
        """Let the scheduler know of the iterations that have ended since it was last told; their ends."""
        return self._advance(self.foreseen.num_ended(self._num_ended))

    def _advance(self, num_ended: int) -> list[float]:
        newly = self.foreseen.ends_s[self._num_ended : num_ended]
        if newly:
            self._num_used_blocks += self._scheduler.advance(len(newly))
            self._num_ended = num_ended
        return newly

    def shorten(self) -> None:
        """Something was received: what was foreseen may end earlier."""
        self.foreseen.cut(self._num_ended + self._scheduler.num_steady_iterations())

    def stop(self) -> None:
        """Nothing is to follow the iteration in flight."""
        self.foreseen.cut(self._num_ended + 1)

    def finish(self) -> list[float]:
        """The last iteration has ended: let the scheduler know of those before it; their ends."""
        return self._advance(len(self.foreseen.ends_s) - 1)

    def held_back(self, source: str) -> Progress | None:
        """Tokens and events of iterations that have ended before the last, each given once."""
        ends_s = self._take(self._num_ended)
        if not ends_s:
            return None
        lasts = [
            TokenOutput(one.request.id, one.attempt, len(one.output_ids) - 1, 0, is_last=False)
            for one in self._batch.decode
        ]
        return Progress(source, events=[self._iterations(source, ends_s)], runs=[TokenRun(lasts, ends_s)])

    def completed(self, source: str, outputs: list[TokenOutput]) -> tuple[TokenRun, Event]:
        """All that was not given yet, with the last iteration, of which `outputs` are."""
        ends_s = self._take(len(self.foreseen.ends_s))
        return TokenRun(outputs, ends_s), self._iterations(source, ends_s)

    def _take(self, num_ended: int) -> list[float]:
        ends_s = self.foreseen.ends_s[self._num_delivered : num_ended]
        self._num_delivered = num_ended
        return ends_s

    def _iterations(self, source: str, ends_s: list[float]) -> Event:
        first = self._num_delivered - len(ends_s)
        details = {
            "started_s": self.foreseen.ends_s[first - 1] if first else self._started_s,
            "ends_s": ends_s,
            "num_decode_tokens": len(self._batch.decode),
            "num_used_blocks": self._num_used_blocks[first : first + len(ends_s)],
        }
        requests = tuple([one.request.id for one in self._batch.decode])
        return Event(ends_s[-1], EventKind.ITERATIONS, source, requests, details)
