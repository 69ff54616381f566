"""Our engine, under its own scheduler and client, in one process."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra import compose, initialize_config_dir

from tests.benchmarks.offline.answering import Seconds, answer
from tests.benchmarks.offline.cases import prompt_ids
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.core.events import EventKind, EventLog
from tetribench.core.request import Request
from tetribench.experiment import Prepared, serve
from tetribench.workload.request_set import RequestSet


def start(model: str, budget: int) -> Seconds:
    register()
    overrides = [
        "+workload=lpld",
        "runtime=inline",
        f"model={model}",
        "systems=[sarathi_like]",
        "system.sarathi_like.num_instances=1",
        f"system.sarathi_like.scheduler.max_num_batched_tokens={budget}",
        "engine.kv_memory_gib=1",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        setup = Composition(compose("config", overrides), "").setup()

    def seconds(batch: int, num_prompt_tokens: int, num_output_tokens: int) -> float:
        """From the first request sent to the last token here."""
        requests = [
            Request(
                id=id,
                arrival_s=0.0,
                num_prompt_tokens=num_prompt_tokens,
                prompt_ids=tuple(prompt_ids(id, num_prompt_tokens)),
                max_output_tokens=num_output_tokens,
            )
            for id in range(batch)
        ]
        prepared, log = Prepared(RequestSet(name="offline", requests=requests), setup.engine.sized(1), None), EventLog()
        with TemporaryDirectory() as folder:
            serve(setup, "sarathi_like", prepared, log, Path(folder), _ignore, _ignore)
        sent_s = min(event.time_s for event in log.events if event.kind is EventKind.SENT)
        finished_s = [event.time_s for event in log.events if event.kind is EventKind.FINISHED]
        assert len(finished_s) == batch
        return max(finished_s) - sent_s

    return seconds


def _ignore(*_: Any) -> None:
    pass


if __name__ == "__main__":
    answer(lambda: start(sys.argv[1], int(sys.argv[2])))
