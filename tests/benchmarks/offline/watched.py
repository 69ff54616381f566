"""Our engine, which says afterwards when its model computed; picklable, for instances in processes of their own."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

from tetribench.core.clock import Clock
from tetribench.engine.base import EngineFactory
from tetribench.engine.hf.schema import HFEngine


class WatchedEngine(HFEngine):
    """Writes into the file `path`, when it is closed, when its model's forward passes were, as (start, end).

    One that is replayed ends with the choice of tokens, which is part of what was recorded.
    """

    path: Path

    def build(self, clock: Clock, device: int | None) -> Any:
        from tetribench.engine.hf.graphs import Run
        from tetribench.engine.hf.models import load_model
        from tetribench.engine.hf.runner import HFRunner

        forwards: list[list[float]] = []

        def loaded(*arguments: Any) -> Any:
            model = load_model(*arguments)
            model.register_forward_pre_hook(lambda *_: forwards.append([clock.now()]))
            model.register_forward_hook(lambda *_: forwards[-1].append(clock.now()))
            return model

        def noted(replay: Run) -> Run:
            def replay_and_note() -> None:
                start_s = clock.now()
                replay()
                forwards.append([start_s, clock.now()])

            return replay_and_note

        with mock.patch("tetribench.engine.hf.build.load_model", loaded):
            engine = super().build(clock, device)
        assert isinstance(engine, HFRunner)
        if engine._graphs is not None:
            replays = engine._graphs._replay
            engine._graphs._replay = {size: noted(replay) for size, replay in replays.items()}
        close = engine.close

        def write_and_close() -> None:
            self.path.write_text(json.dumps(forwards))
            close()

        engine.close = write_and_close  # type: ignore[method-assign]
        return engine


def watched(engine: EngineFactory, path: Path) -> WatchedEngine:
    assert isinstance(engine, HFEngine)
    found = WatchedEngine(model=engine.model)
    found.__dict__.update(vars(engine), path=path)
    return found
