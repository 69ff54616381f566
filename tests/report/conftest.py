"""A synthetic run folder: two systems served by a toy queue, written in the layout of a real run."""

import heapq
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.run_folders import slot
from tetribench.core.events import CLIENT, GLOBAL_SCHEDULER, Event, EventKind, EventLog
from tetribench.core.request import Request, class_of
from tetribench.metrics.limits import Limits
from tetribench.metrics.log import encode_event, read_events
from tetribench.report.runs import Run
from tetribench.report.write import write_report
from tetribench.run_folder import RUN_SCHEMA_VERSION
from tetribench.workload.files import read, write
from tetribench.workload.request_set import RequestSet

CHUNK_TOKENS = 512
CHUNK_S = 0.120
DECODE_S = 0.030
LINK_S_PER_TOKEN = 0.00003


@dataclass
class Toy:
    """Requests by id: arrival, prompt tokens, response tokens; and the log that a toy system writes."""

    requests: list[tuple[float, int, int]]
    log: EventLog = field(default_factory=EventLog)

    def record(self, time_s: float, kind: EventKind, source: str, *requests: int, **details: Any) -> None:
        self.log.record(Event(time_s, kind, source, requests, details))

    def arrive(self, to: str) -> None:
        for id, (arrival_s, prompt, output) in enumerate(self.requests):
            details = {"num_prompt_tokens": prompt, "max_output_tokens": output, "label": class_of(prompt, output)}
            self.record(arrival_s, EventKind.ARRIVED, CLIENT, id, **details)
            self.record(arrival_s, EventKind.SENT, CLIENT, id)
            self.record(arrival_s, EventKind.ROUTED, GLOBAL_SCHEDULER, id, to=to)

    def instance(self, name: str, role: str, stopped_s: float) -> None:
        facts = {"num_blocks": 900, "block_size": 16, "device": "cost model", "dtype": "float16"}
        self.record(0.0, EventKind.INSTANCE_STARTED, name, role=role)
        self.record(0.0, EventKind.INSTANCE_READY, name, role=role, **facts)
        self.record(stopped_s, EventKind.INSTANCE_STOPPED, name)

    def iteration(self, name: str, started_s: float, ended_s: float, decodes: list[int], **details: Any) -> None:
        used: dict[str, Any] = {
            "num_prefill_tokens": 0,
            "num_decode_tokens": len(decodes),
            "num_used_blocks": 10 * len(decodes),
            "num_swapped_bytes": 0,
        }
        requests = details.pop("prompts", decodes)
        self.record(ended_s, EventKind.ITERATION, name, *requests, started_s=started_s, **used | details)

    def prefill(self, name: str, id: int, now_s: float) -> float:
        prompt = self.requests[id][1]
        self.record(now_s, EventKind.PREFILL_STARTED, name, id)
        for start in range(0, prompt, CHUNK_TOKENS):
            tokens = min(CHUNK_TOKENS, prompt - start)
            ended_s = now_s + CHUNK_S * (0.2 + 0.8 * tokens / CHUNK_TOKENS)
            chunk = {"num_prefill_tokens": tokens, "chunks": [[start, tokens]], "num_padding_tokens": 0}
            self.iteration(name, now_s, ended_s, [], prompts=[id], **chunk)
            now_s = ended_s
        self.record(now_s, EventKind.PREFILL_DONE, name, id)
        self.record(now_s, EventKind.FIRST_TOKEN, CLIENT, id)
        return now_s

    def decode(self, name: str, left: dict[int, int], now_s: float) -> float:
        """One token for each of the running requests; drops those that ended from `left`."""
        ended_s = now_s + DECODE_S * (1 + len(left) / 32)
        self.iteration(name, now_s, ended_s, list(left))
        self.record(ended_s, EventKind.TOKEN, CLIENT, *left)
        for id in list(left):
            left[id] -= 1
            if left[id] == 0:
                del left[id]
                self.record(ended_s, EventKind.FINISHED, CLIENT, id, num_output_tokens=self.requests[id][2])
        return ended_s


def colocated(requests: list[tuple[float, int, int]], instance: str = "colocated_0") -> EventLog:
    """Prefill first, at most 16 running sequences."""
    toy, now_s, left = Toy(requests), 0.0, dict[int, int]()
    toy.arrive(instance)
    waiting = list(range(len(requests)))
    while waiting or left:
        if waiting and requests[waiting[0]][0] <= now_s and len(left) < 16:
            id = waiting.pop(0)
            now_s = toy.prefill(instance, id, now_s)
            toy.record(now_s, EventKind.ADMITTED, instance, id)
            left[id] = requests[id][2] - 1
        elif left:
            now_s = toy.decode(instance, left, now_s)
        else:
            now_s = requests[waiting[0]][0]
    toy.instance(instance, "colocated", now_s)
    return toy.log


def dispatch(now_s: float) -> dict[str, Any]:
    """What is said of a decision between two equal instances."""
    load = [9000, 0, 0, 0.05 + now_s % 0.1]
    return {
        "to": "decode_0",
        "low": 0,
        "high": 200,
        "num_fitting": 2,
        "candidates": {"decode_0": load, "decode_1": load},
    }


def split(requests: list[tuple[float, int, int]]) -> EventLog:
    """One prefill and one decode instance, KV sent after the last chunk."""
    toy, now_s, landed = Toy(requests), 0.0, list[tuple[float, int]]()
    toy.arrive("prefill_0")
    for id, (arrival_s, prompt, _) in enumerate(requests):
        now_s = toy.prefill("prefill_0", id, max(now_s, arrival_s))
        toy.record(now_s, EventKind.DISPATCHED, "prefill_0", id, **dispatch(now_s))
        toy.record(now_s, EventKind.RESERVED, "decode_0", id, num_blocks=prompt // 16 + 1)
        done_s, num_bytes = now_s + LINK_S_PER_TOKEN * prompt, prompt * 819_200
        toy.record(now_s, EventKind.TRANSFER_STARTED, "prefill_0", id)
        sent = {"started_s": now_s, "num_bytes": num_bytes, "to": "decode_0"}
        toy.record(done_s, EventKind.TRANSFER, "prefill_0", id, **sent)
        toy.record(done_s, EventKind.TRANSFER_DONE, "prefill_0", id, num_bytes=num_bytes, busy_s=done_s - now_s)
        heapq.heappush(landed, (done_s, id))
    prefilled_s, now_s, left = now_s, 0.0, dict[int, int]()
    while landed or left:
        while landed and landed[0][0] <= now_s:
            id = heapq.heappop(landed)[1]
            toy.record(now_s, EventKind.ADMITTED, "decode_0", id)
            left[id] = requests[id][2] - 1
        now_s = toy.decode("decode_0", left, now_s) if left else landed[0][0]
    toy.instance("prefill_0", "prefill", prefilled_s)
    toy.instance("decode_0", "decode", now_s)
    return toy.log


def draw_requests(num_requests: int, seed: int = 0) -> list[tuple[float, int, int]]:
    draw, arrival_s, requests = random.Random(seed), 0.0, []
    for _ in range(num_requests):
        arrival_s += draw.expovariate(2.0)
        requests.append((arrival_s, int(draw.lognormvariate(5.8, 0.9)) + 4, int(draw.lognormvariate(4.6, 0.8)) + 2))
    return requests


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_log(path: Path, log: EventLog) -> None:
    path.write_bytes(b"".join(encode_event(event) for event in log.events))


ARMS = {
    "vllm_like": ({"colocated_0": "colocated"}, {"decode.admit": "greedy", "max_num_seqs": 16}),
    "tetri": ({"prefill_0": "prefill", "decode_0": "decode"}, {"decode.admit": "reserve_dynamic", "chunk": 512}),
}
"""By system the roles of its instances, and its options."""


def write_requests(folder: Path, drawn: list[tuple[float, int, int]]) -> None:
    folder.mkdir(parents=True)
    requests = [
        Request(
            id=id,
            arrival_s=arrival_s,
            num_prompt_tokens=prompt,
            max_output_tokens=output,
            label=class_of(prompt, output),
        )
        for id, (arrival_s, prompt, output) in enumerate(drawn)
    ]
    write(RequestSet(name="toy", requests=requests), folder / "requests.jsonl")


def write_slot(folder: Path, system: str, log: EventLog, options: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    write_log(folder / "events.jsonl", log)
    roles, own = ARMS[system]
    shared = {"num_blocks": 900, "device": "cost model", "stop_token_ids": [], "versions": {"torch": "2.13.0"}}
    facts_of = {name: {"role": role} | shared for name, role in roles.items()}
    write_json(folder / "manifest.json", {"instances": facts_of, "options": options | own})
    write_json(folder / "slot.json", {"machine": {"num_cores": 2, "other_cores": 0.01}})


def build_run(
    path: Path, num_requests: int = 24, workload: str = "mixed", seed: int = 0, num_repeats: int = 1, **facts: Any
) -> Path:
    """Write a run folder at `path`; `facts` replace entries of run.json."""
    run: dict[str, Any] = {
        "schema_version": RUN_SCHEMA_VERSION,
        "name": f"{workload}_{seed}",
        "workload": workload,
        "runtime": "sim",
        "seed": seed,
        "systems": list(ARMS),
        "baseline": "vllm_like",
        "command": f"tetribench +workload={workload} seed={seed}",
        "num_requests": num_requests,
        "num_cut": 0,
        "slo": {"ttft_s": 2.0, "tpot_s": 0.1},
        "concurrency": None,
        "arrivals": {"rate_per_s": 2.0, "cv": 1.0},
        "limits": asdict(Limits()),
        "verdict": {"metric": "mean_jct_s", "margin": 0.05},
        "created": "2026-11-22T12:00:00+00:00",
        "repeats": [],
        "notes": ["lengths drawn from a lognormal distribution"],
    }
    path.mkdir(parents=True)
    options = {"engine.block_size": 16, "engine.dtype": "float16"}
    for repeat in range(num_repeats):
        requests = draw_requests(num_requests, seed + repeat)
        logs = {"vllm_like": colocated(requests), "tetri": split(requests)}
        logs = {system: log for system, log in logs.items() if system in facts.get("systems", ARMS)}
        slots = [
            {"system": system, "folder": f"repeats/{repeat}/{place}-{system}"} for place, system in enumerate(logs)
        ]
        run["repeats"].append({"seed": seed + repeat, "fingerprint": "b1946ac92492d2347c6235b4", "slots": slots})
        write_requests(path / "repeats" / str(repeat), requests)
        for place, log in zip(slots, logs.values(), strict=True):
            write_slot(path / place["folder"], place["system"], log, options)
    write_json(path / "run.json", run | facts)
    write_json(path / "status.json", {"state": "complete", "reason": None})
    (path / "config.yaml").write_text("workload:\n  name: mixed\nseed: 0\n")
    packages = {"torch": "2.13.0", "pandas": "3.1.1"}
    machine = {"cpu": "a processor <of some kind>", "cores": 2, "memory_gib": 23.5, "governor": None}
    machine |= {"clock_now_mhz": None, "clock_max_mhz": 3500, "load_average_before": [0.25, 0.5, 1.0]}
    environment = {"commit": "0123abc", "dirty": True, "python": "3.11.7", "packages": packages, "machine": machine}
    write_json(path / "environment.json", environment | {"gpus": []})
    return path


def serve_again(path: Path, slower: float = 1.0) -> None:
    """Every serving once more, in the order turned round, all of whose times are longer by this factor."""
    run = json.loads((path / "run.json").read_text())
    for repeat in run["repeats"]:
        for one in list(reversed(repeat["slots"])):
            again = {"system": one["system"], "folder": f"{one['folder']}-again"}
            shutil.copytree(path / one["folder"], path / again["folder"])
            log = path / again["folder"] / "events.jsonl"
            events = read_events(log)
            for event in events:
                event.time_s *= slower
                event.details |= (
                    {"started_s": event.details["started_s"] * slower} if "started_s" in event.details else {}
                )
            log.write_bytes(b"".join(encode_event(event) for event in events))
            repeat["slots"].append(again)
    write_json(path / "run.json", run)


def add_copies(path: Path, names: list[str], of: str = "tetri") -> None:
    """More systems in a run of one repeat, which did exactly what another one did; they come first."""
    run = json.loads((path / "run.json").read_text())
    (repeat,) = run["repeats"]
    for name in names:
        shutil.copytree(slot(path, of), path / "repeats" / "0" / f"9-{name}")
        repeat["slots"].append({"system": name, "folder": f"repeats/0/9-{name}"})
    write_json(path / "run.json", run | {"systems": [*names, *sorted(run["systems"])]})


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(folder name, num_requests=..., workload=..., seed=..., **facts)`, in a fresh folder."""

    def make(name: str = "run", **arguments: Any) -> Path:
        return build_run(tmp_path / name, **arguments)

    return make


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose report is written; not to be changed."""
    path = build_run(tmp_path_factory.mktemp("reported") / "run", num_requests=40)
    write_report(path)
    return path


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of eight systems, more than there are looks; its report is written."""
    path = build_run(tmp_path_factory.mktemp("many") / "run", num_requests=40)
    names = [f"tetri_{number}" for number in range(6)]
    add_copies(path, names)
    return write_report(path)


@pytest.fixture
def make_classed_run(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """As `make_run`, but every third request is of the SLA class interactive, and the others are of batch."""

    def sla_class(id: int) -> str:
        return "batch" if id % 3 else "interactive"

    def make(name: str = "run", **arguments: Any) -> Path:
        path = make_run(name, **arguments)
        for file in path.glob("repeats/*/requests.jsonl"):
            drawn = read(file)
            classed = [replace(request, sla_class=sla_class(request.id)) for request in drawn.requests]
            write(replace(drawn, requests=classed), file)
        for log in path.glob("repeats/*/*/events.jsonl"):
            events = read_events(log)
            for event in events:
                if event.kind is EventKind.ARRIVED:
                    event.details["sla_class"] = sla_class(event.requests[0])
            log.write_bytes(b"".join(encode_event(event) for event in events))
        return path

    return make


@pytest.fixture
def run_dir(make_run: Callable[..., Path]) -> Path:
    return make_run()
