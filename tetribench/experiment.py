"""The composition root below the command line: from components to a run folder that a report can be drawn from."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from tetribench.core.clock import Clock
from tetribench.core.events import EventLog
from tetribench.drive import session
from tetribench.drive.calibration import calibrate
from tetribench.drive.loadgen import ClosedLoop, Loop
from tetribench.drive.progress import progress
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.model import Model
from tetribench.engine.sharing import Sharing
from tetribench.instance.runtime import Process, Runtime
from tetribench.machine import other_work
from tetribench.metrics.limits import Limits
from tetribench.metrics.log import EventWriter
from tetribench.metrics.price import Price
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo
from tetribench.passport import find_done, passport
from tetribench.power import energy_read
from tetribench.provenance import environment
from tetribench.repeats import Repeats, orders
from tetribench.report.looks import Looks
from tetribench.run_folder import RUN_SCHEMA_VERSION, RunFolder, write_json, write_outputs
from tetribench.systems.base import Plan, System
from tetribench.track import Tracking
from tetribench.workload.arrivals import asked_process
from tetribench.workload.files import write
from tetribench.workload.generate import generate
from tetribench.workload.prose import with_prose
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A run as objects. `resolved` is its whole configuration, `command` what the user typed, `overrides` what of it is
    this run's: a sweep has several."""

    workload_name: str
    workload: Workload
    systems: dict[str, System]
    model: Model
    engine: EngineFactory
    runtime: Runtime
    drive: Loop
    track: Tracking
    seed: int
    repeats: Repeats
    aa_band: bool
    verdict: Rule
    limits: Limits
    natural_stop: bool | None
    stall_timeout_s: float
    slo: Slo
    cost: Price
    out: Path
    name: str | None
    resume: bool
    show_progress: bool
    resolved: Callable[[], "Resolved"]
    command: str
    overrides: list[str]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration with every reference resolved: as plain values, and as text."""

    options: dict[str, Any]
    yaml: str


class InvalidRun(Exception):
    """A run that cannot be believed; the message has the codes of the reasons."""


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

    def again(self, overrides: Sequence[str]) -> "Composed":
        """What the command line would say with these overrides alone, written where this one says."""

    def task(self) -> Any:
        """What is to be done."""

    def overrides(self) -> list[str]:
        """What the user typed of this job, word for word."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run needs beside its setup: requests, a sized engine, and the model's tokenizer where it is used."""

    requests: RequestSet
    engine: EngineFactory
    tokenizer: Any


def prepare(setup: Setup) -> Prepared:
    """Raises ValueError when anything cannot work; nothing has been started or written by then."""
    plans = [system.plan(setup.engine) for system in setup.systems.values()]
    engine = setup.engine.sized(max(plan.most_devices for plan in plans), max(plan.num_sharing for plan in plans))
    if not setup.runtime.is_virtual:
        _check_links(setup, engine)
        _check_sharing(setup, plans)
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
    for system in setup.systems.values():
        _check_capacity(system.plan(engine).engine, requests)
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
            spec.link.check(in_parts=engine.has_parts)


def _check_sharing(setup: Setup, plans: Sequence[Plan]) -> None:
    """Two instances really share a device where both compute in processes of their own, or by threads of one."""
    computes = not isinstance(setup.engine, CostModelFactory)
    for sharing in [plan.sharing for plan in plans if plan.sharing is not Sharing.none]:
        if not computes or not (isinstance(setup.runtime, Process) or sharing.is_in_one_process):
            raise ValueError(
                f"system.tetri.sharing={sharing.value}: two instances share a device where both compute in processes, "
                f"or take turns in virtual time; must be none, or runtime=process with engine=hf, or runtime=sim"
            )


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


def run(composed: Composed, console: Console) -> Path:
    """Serve the workload on every system, as often as asked for. The run folder, which is then whole.

    With `resume` a run that is there already, by its passport, is not done again.

    Each repeat has a seed of its own, the same for all of its systems.
    """
    first = composed.setup()
    repeat = _Repeat(0, first, prepare(first))
    own_passport = passport(first.resolved().options, repeat.prepared.requests.fingerprint())
    done = find_done(first.out, own_passport) if first.resume else None
    if done is not None:
        console.print(f"{done}: is this run, done already", soft_wrap=True)
        return done
    folder = RunFolder(first.out, first.name, f"{first.workload_name}-{first.runtime.name}")
    facts = _facts(first, repeat.prepared.requests, folder) | {"passport": own_passport}
    started_s, looks = time.monotonic(), Looks(folder.path)
    with folder.status():
        (folder.path / "config.yaml").write_text(first.resolved().yaml)
        folder.write_json("environment.json", environment())
        _calibrate(repeat, folder, console)
        for order in orders(list(first.systems), first.seed, is_twice=first.aa_band and first.engine.is_noisy):
            _serve_repeat(repeat, order, folder, facts, console)
            num_done = repeat.number + 1
            if not first.repeats.asks_for_more(num_done, looks.width, time.monotonic() - started_s):
                break
            setup = composed.variant({"seed": first.seed + num_done}).setup()
            repeat = _Repeat(num_done, setup, prepare(setup))
    return folder.path


@dataclass(frozen=True, slots=True)
class _Repeat:
    number: int
    setup: Setup
    prepared: Prepared


def _calibrate(repeat: _Repeat, folder: RunFolder, console: Console) -> None:
    """In real time: what the client adds, at the load that it is about to be put under."""
    setup, load_s = repeat.setup, repeat.setup.limits.calibration_s
    if setup.runtime.is_virtual or load_s is None:
        return
    num_instances = max(len(system.plan(setup.engine).instances) for system in setup.systems.values())
    requests = repeat.prepared.requests.requests
    with progress(console, "the client alone", None) if setup.show_progress else _silent() as on_progress:
        error = calibrate(
            requests,
            setup.drive,
            setup.runtime,
            num_instances=num_instances,
            load_s=load_s,
            folder=folder.path / "client",
            on_progress=on_progress,
        )
    folder.write_json("client.json", asdict(error))


def _serve_repeat(
    repeat: _Repeat, order: Sequence[str], folder: RunFolder, facts: dict[str, Any], console: Console
) -> None:
    """Every slot with a fresh stack. run.json names a slot once it is begun, so that a run broken off can be read."""
    setup, requests = repeat.setup, repeat.prepared.requests
    write(requests, folder.repeat(repeat.number) / "requests.jsonl")
    slots: list[dict[str, str]] = []
    facts["repeats"].append({"seed": setup.seed, "fingerprint": requests.fingerprint(), "slots": slots})
    for place, name in enumerate(order):
        slot_folder = folder.slot(repeat.number, place, name)
        slots.append({"system": name, "folder": str(slot_folder.relative_to(folder.path))})
        folder.write_json("run.json", facts)
        title = name if repeat.number == place == 0 and len(order) == 1 else f"{name} {repeat.number}.{place}"
        with progress(console, title, len(requests.requests)) if setup.show_progress else _silent() as on_progress:
            prepared = replace(repeat.prepared, engine=repeat.prepared.engine.in_slot(f"{repeat.number}.{place}"))
            with other_work() as machine:
                outputs = _serve_and_record(setup, name, prepared, slot_folder, on_progress, console)
        if not setup.runtime.is_virtual:
            write_outputs(slot_folder, requests, outputs, repeat.prepared.tokenizer)
        write_json(slot_folder / "slot.json", {"machine": asdict(machine)})


@contextmanager
def _silent() -> Iterator[Any]:
    yield lambda num_ended, num_tokens: None


def _facts(setup: Setup, requests: RequestSet, folder: RunFolder) -> dict[str, Any]:
    """The content of run.json before the first repeat."""
    process = asked_process(setup.workload)
    return {
        "schema_version": RUN_SCHEMA_VERSION,
        "name": folder.path.name,
        "workload": setup.workload_name,
        "runtime": setup.runtime.name,
        "seed": setup.seed,
        "systems": list(setup.systems),
        "baseline": list(setup.systems)[-1],
        "command": setup.command,
        "overrides": setup.overrides,
        "num_requests": len(requests.requests),
        "num_cut": requests.num_cut,
        "slo": asdict(setup.slo),
        "concurrency": setup.drive.concurrency if isinstance(setup.drive, ClosedLoop) else None,
        "arrivals": None if process is None else process._asdict(),
        "limits": asdict(setup.limits),
        "verdict": asdict(setup.verdict),
        "until_interval_width": setup.repeats.interval_width,
        "cost": asdict(setup.cost),
        "created": folder.created,
        "repeats": [],
        "notes": [],
    }


def _serve_and_record(
    setup: Setup, name: str, prepared: Prepared, folder: Path, on_progress: Any, console: Console
) -> dict[int, list[int]]:
    """Events go to the slot's folder as they come. Token ids by request."""
    options = _flat(setup.resolved().options["system"][name.partition("#")[0]])

    def describe(instances: dict[str, dict[str, Any]]) -> None:
        write_json(folder / "manifest.json", {"instances": instances, "options": options})
        _say_predictor(name, instances, console)

    with (folder / "events.jsonl").open("wb") as file:
        writer = EventWriter(file)
        try:
            return serve(setup, name, prepared, EventLog(writer.write), folder / "logs", describe, on_progress)
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
    return session.serve(
        setup.systems[name].plan(prepared.engine),
        prepared.requests.requests,
        setup.drive,
        setup.runtime,
        log,
        log_folder,
        stall_timeout_s=setup.stall_timeout_s,
        on_ready=on_ready,
        on_progress=on_progress,
        beside=lambda clock: _metered(setup, log_folder, clock),
    )


def _metered(setup: Setup, log_folder: Path, clock: Clock) -> AbstractContextManager[None]:
    """In real time, what GPUs draw is written to a file beside the logs."""
    return nullcontext() if setup.runtime.is_virtual else energy_read(log_folder.with_name("energy.jsonl"), clock)


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
