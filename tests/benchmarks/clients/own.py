"""Our client as `system=openai_server` has it: `python -m tests.benchmarks.clients.own URL STREAMS REQUESTS FOLDER`.

Writes the TTFT that its run reports to `FOLDER/ttft.json`; events go to a file, as they do in a run.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.benchmarks.clients.load import NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, Load, Ttft
from tetribench.control.route import LeastRequests
from tetribench.core.events import EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import ClosedLoop
from tetribench.drive.session import serve
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.model import Model
from tetribench.instance.runtime import Process
from tetribench.metrics.log import EventWriter, read_columns
from tetribench.metrics.timeline import is_finished, request_table
from tetribench.systems.openai_server import OpenAIServer

STALL_TIMEOUT_S = 30.0


def measure(url: str, load: Load, folder: Path) -> Ttft:
    """Serve the load and read what it was from the run's events."""
    plan = OpenAIServer(route=LeastRequests(), base_url=f"{url}/v1", num_warm_up=0).plan(
        HFEngine(model=Model(name="tiny"))
    )
    requests = [
        Request(
            id=id,
            arrival_s=0.0,
            num_prompt_tokens=NUM_PROMPT_TOKENS,
            max_output_tokens=NUM_OUTPUT_TOKENS,
            prompt_ids=tuple(100 + (7 * id + position) % 900 for position in range(NUM_PROMPT_TOKENS)),
        )
        for id in range(load.num_requests)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.jsonl"
    with path.open("wb") as file:
        writer = EventWriter(file)
        loop, log = ClosedLoop(concurrency=load.num_streams), EventLog(writer.write)
        serve(plan, requests, loop, Process(), log, folder / "logs", stall_timeout_s=STALL_TIMEOUT_S)
        writer.flush()
    table = request_table(read_columns(path))
    table = table[is_finished(table)]
    ttft_ms = 1e3 * (table["first_token_s"] - table["arrived_s"]).to_numpy()
    return Ttft(len(table), float(ttft_ms.mean()), float(np.percentile(ttft_ms, 99)))


def main() -> None:
    url, num_streams, num_requests, folder = sys.argv[1:]
    ttft = measure(url, Load(int(num_streams), int(num_requests)), Path(folder))
    (Path(folder) / "ttft.json").write_text(json.dumps(asdict(ttft)))


if __name__ == "__main__":
    main()
