"""The composition root below the command line: from components to a run folder that a report can be drawn from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from tetribench.core.clock import Clock
from tetribench.core.events import EventLog
from tetribench.drive.loadgen import Client, Loop
from tetribench.drive.progress import progress
from tetribench.engine.base import EngineFactory
from tetribench.engine.model import Model
from tetribench.instance.launch import Launcher
from tetribench.instance.runtime import Runtime
from tetribench.metrics.log import EventWriter
from tetribench.metrics.price import Price
from tetribench.metrics.slo import Slo
from tetribench.power import energy_read
from tetribench.provenance import environment
from tetribench.run_folder import RUN_SCHEMA_VERSION, RunFolder, write_outputs
from tetribench.systems.base import System
from tetribench.systems.stack import Stack
from tetribench.track import Tracking
from tetribench.workload.files import write
from tetribench.workload.generate import generate
from tetribench.workload.prose import with_prose
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A run as objects. `resolved` is its whole configuration, `command` what the user typed."""

    workload_name: str
    workload: Workload
    systems: dict[str, System]
    model: Model
    engine: EngineFactory
    runtime: Runtime
    drive: Loop
    track: Tracking
    seed: int
    natural_stop: bool | None
    stall_timeout_s: float
    slo: Slo
    cost: Price
    out: Path
    name: str | None
    show_progress: bool
    resolved: Callable[[], "Resolved"]
    command: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration with every reference resolved: as plain values, and as text."""

    options: dict[str, Any]
    yaml: str


class ExperimentsFailed(Exception):
    """Some of several experiments failed; the message says which and why."""


Axes = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By axis and label, the options that differ there."""


class Composed(Protocol):
    """What the user's command line says, as far as a task wants to know it.

    All of these raise ValueError for what composes but cannot be.
    """

    def setup(self) -> Setup:
        """The components of a run."""

    def axes(self) -> Axes:
        """What an experiment varies."""

    def variant(self, options: Mapping[str, Any]) -> "Composed":
        """The same with other values of some options, by their dotted names; `x2` is twice the present value."""

    def experiment(self, name: str, overrides: list[str]) -> "Composed":
        """What the command line would say with `+experiment=name` and these overrides alone."""

    def task(self) -> Any:
        """What is to be done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run needs beside its setup: requests, a sized engine, and the model's tokenizer where it is used."""

    requests: RequestSet
    engine: EngineFactory
    tokenizer: Any


def prepare(setup: Setup) -> Prepared:
    """Raises ValueError when anything cannot work; nothing has been started or written by then."""
    plans = [system.plan(setup.engine) for system in setup.systems.values()]
    engine = setup.engine.sized(max(len(plan.instances) for plan in plans))
    if not setup.runtime.is_virtual:
        _check_links(setup, engine)
    shape = setup.model.shape()
    tokenizer = _tokenizer(setup)
    requests = generate(setup.workload, setup.seed, shape.max_context_tokens, tokenizer)
    if not setup.runtime.is_virtual:
        has_text = tokenizer is not None
        natural_stop = has_text if setup.natural_stop is None else setup.natural_stop
        stopping = [replace(request, natural_stop=natural_stop) for request in requests.requests]
        requests = replace(requests, requests=stopping)  # before the prompts, which are drawn for what is then written
        if has_text:
            requests = with_prose(requests, tokenizer, setup.seed)
        else:
            requests = requests.with_prompts(shape.vocab_size, setup.seed)
    if tokenizer is not None:
        requests = requests.with_words(tokenizer.decode)
    for plan in plans:
        plan.predictor.check(requests.requests)
    _check_capacity(engine, requests)
    _check_sla_classes(setup.slo, requests)
    return Prepared(requests, engine, tokenizer)


def _tokenizer(setup: Setup) -> Any:
    """Loaded only for real weights, and in virtual time only for a workload of texts."""
    from tetribench.workload.text import TextWorkload
    from tetribench.workload.text_mix import TextMixWorkload

    is_text = isinstance(setup.workload, TextWorkload | TextMixWorkload)
    if setup.model.is_random or (setup.runtime.is_virtual and not is_text):
        return None
    from tetribench.engine.hf.tokenizer import load_tokenizer

    return load_tokenizer(setup.model)


def _check_links(setup: Setup, engine: EngineFactory) -> None:
    """What carries the KV is there on this machine; in virtual time nothing carries it."""
    for system in setup.systems.values():
        for spec in system.plan(engine).instances:
            spec.link.check()


def _check_capacity(engine: EngineFactory, requests: RequestSet) -> None:
    """A request that no instance could ever hold would wait forever."""
    num_tokens = engine.num_blocks() * engine.block_size
    largest = max(requests.requests, key=lambda request: request.num_tokens)
    if largest.num_tokens > num_tokens:
        raise ValueError(
            f"engine.kv_memory_gib: holds {num_tokens} tokens, and request {largest.id} has {largest.num_tokens}; "
            f"must hold the longest request"
        )


def _check_sla_classes(slo: Slo, requests: RequestSet) -> None:
    """Bounds of a class that no request has would be without effect, and are most often a misspelt name."""
    known = sorted({request.sla_class for request in requests.requests})
    for name in slo.classes:
        if name not in known:
            raise ValueError(f"slo.classes.{name}: no request has this SLA class; the workload has {', '.join(known)}")


def run(setup: Setup, console: Console) -> Path:
    """Serve the workload on every system, one after the other, and report. The run folder, which is then whole."""
    prepared = prepare(setup)
    requests = prepared.requests
    folder = RunFolder(setup.out, setup.name, f"{setup.workload_name}-{setup.runtime.name}")
    with folder.status():
        _describe(setup, requests, folder)
        for name in setup.systems:
            with progress(console, name, len(requests.requests)) if setup.show_progress else _silent() as on_progress:
                outputs = _serve_and_record(setup, name, prepared, folder, on_progress, console)
            if not setup.runtime.is_virtual:
                write_outputs(folder.system(name), requests, outputs, prepared.tokenizer)
    return folder.path


@contextmanager
def _silent() -> Iterator[Any]:
    yield lambda num_ended, num_tokens: None


def _describe(setup: Setup, requests: RequestSet, folder: RunFolder) -> None:
    (folder.path / "config.yaml").write_text(setup.resolved().yaml)
    folder.write_json("environment.json", environment())
    write(requests, folder.path / "requests.jsonl")
    facts = {
        "schema_version": RUN_SCHEMA_VERSION,
        "name": folder.path.name,
        "workload": setup.workload_name,
        "runtime": setup.runtime.name,
        "seed": setup.seed,
        "systems": list(setup.systems),
        "baseline": list(setup.systems)[-1],
        "command": setup.command,
        "fingerprint": requests.fingerprint(),
        "num_requests": len(requests.requests),
        "num_cut": requests.num_cut,
        "slo": asdict(setup.slo),
        "cost": asdict(setup.cost),
        "created": folder.created,
        "notes": [],
    }
    folder.write_json("run.json", facts)


def _serve_and_record(
    setup: Setup, name: str, prepared: Prepared, folder: RunFolder, on_progress: Any, console: Console
) -> dict[int, list[int]]:
    """Events go to the run folder as they come. Token ids by request."""
    system_folder = folder.system(name)
    options = _flat(setup.resolved().options["system"][name.partition("#")[0]])

    def describe(instances: dict[str, dict[str, Any]]) -> None:
        folder.write_json(f"systems/{name}/manifest.json", {"instances": instances, "options": options})
        _say_predictor(name, instances, console)

    with (system_folder / "events.jsonl").open("wb") as file:
        writer = EventWriter(file)
        try:
            return serve(setup, name, prepared, EventLog(writer.write), system_folder / "logs", describe, on_progress)
        finally:
            writer.flush()


def serve(
    setup: Setup,
    name: str,
    prepared: Prepared,
    log: EventLog,
    log_folder: Path,
    on_ready: Callable[[dict[str, dict[str, Any]]], None],
    on_progress: Callable[[int, int], None],
) -> dict[int, list[int]]:
    """One system, fresh, from start-up to stop. Token ids by request.

    `on_ready` is told the facts of each instance, `on_progress` the requests ended and the tokens so far; what
    processes print goes to `log_folder`, what GPUs draw to energy.jsonl beside it.
    """
    outputs: dict[int, list[int]] = {}

    async def main(clock: Clock, launcher: Launcher) -> None:
        stack = Stack(setup.systems[name].plan(prepared.engine), launcher, clock, log)
        client = Client(clock=clock, log=log, stall_timeout_s=setup.stall_timeout_s, on_progress=on_progress)
        meter = nullcontext() if setup.runtime.is_virtual else energy_read(log_folder.with_name("energy.jsonl"), clock)
        with meter:
            try:
                on_ready(await stack.start(client.deliver, client.fail))
                await client.run(prepared.requests.requests, setup.drive, stack)
            finally:
                await stack.stop()
                outputs.update(client.outputs)

    setup.runtime.run(main, log_folder)
    return outputs


def _say_predictor(system: str, instances: dict[str, dict[str, Any]], console: Console) -> None:
    """How a classifier runs depends on the machine."""
    for predictor in sorted({facts["predictor"] for facts in instances.values()}):
        if predictor.startswith("learned"):
            console.print(f"{system}: length predictor {predictor}", soft_wrap=True)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
