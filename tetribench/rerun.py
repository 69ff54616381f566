"""`task=rerun` and `task=plan`: a run once more, and a run before it is done."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tetribench.core.events import Event, EventLog
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.experiment import Composed, ExperimentsFailed, Prepared, Setup, prepare, run, serve
from tetribench.instance.runtime import Sim


class Rerun:
    """Repeat the run in the folder `run` with its own configuration, and say whether the result is the same.

    In virtual time the events must be equal to the byte. In real time every ratio must lie in the interval that it had;
    a run of one repeat has none, and then nothing is said.
    """

    def __init__(self, *, run: str) -> None:
        self.run = Path(run)

    def execute(self, composed: Composed, console: Console) -> None:
        from tetribench.report.runs import load_run
        from tetribench.report.write import write_report

        before = load_run(self.run)
        if not before.facts.overrides:
            raise ValueError(f"task.run={self.run}: run.json does not say with which options it was made")
        again = composed.again(before.facts.overrides)
        folder = run(again, console)
        after = write_report(folder)
        if before.facts.passport["configuration"] != after.facts.passport["configuration"]:
            console.print("the defaults have changed since that run: its options now mean another configuration")
        console.print(f"{folder / 'report.html'}", soft_wrap=True)
        differing = (
            _differing_logs(self.run, folder) if before.is_virtual else _outside(before.document, after.document)
        )
        same = "identical to the byte" if before.is_virtual else "inside the intervals of the run before"
        if differing is None:
            console.print(f"{self.run}: one repeat has no interval; nothing to say of the new one", soft_wrap=True)
        elif differing:
            raise ExperimentsFailed(f"{folder}: not {same}: {', '.join(differing)}")
        else:
            console.print(f"{folder}: {same}", soft_wrap=True)


def _differing_logs(before: Path, after: Path) -> list[str]:
    """Event logs that are not equal, by their place in the run folder."""
    logs = {path.relative_to(folder) for folder in (before, after) for path in folder.glob("repeats/*/*/events.jsonl")}
    return sorted(str(log) for log in logs if _content(before / log) != _content(after / log))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _outside(before: dict[str, Any], after: dict[str, Any]) -> list[str] | None:
    """Ratios that left their interval; None where there are no intervals."""
    found, has_intervals = [], False
    for old, new in zip(before["comparison"], after["comparison"], strict=True):
        for system, test in old["tests"].items():
            ratio = new["ratios"].get(system)
            if test["low"] is None or ratio is None:
                continue
            has_intervals = True
            if not test["low"] <= ratio <= test["high"]:
                bounds = f"[{test['low']:.3g}, {test['high']:.3g}]"
                found.append(f"{old['title']} of {system} is {ratio:.3g}, and was in {bounds}")
    return found if has_intervals else None


class Plan:
    """Say which runs there would be, about how long they take and on what, and start nothing.

    What is refused when a run starts is refused here. The time is predicted in virtual time on `engine`, a cost model.
    """

    def __init__(self, *, engine: EngineFactory) -> None:
        self.engine = engine

    def execute(self, composed: Composed, console: Console) -> None:
        setup, engine = composed.setup(), self.engine
        assert isinstance(engine, CostModelFactory), "the option file chooses no other"
        prepared = prepare(setup)
        num_slots = 2 if setup.aa_band and setup.engine.is_noisy else 1
        num_servings = setup.repeats.num * num_slots
        title = f"{setup.workload_name}: {len(prepared.requests.requests)} requests, runtime={setup.runtime.name}"
        table = Table(
            "system", "instances", "devices", "servings", "each (s)", box=SIMPLE_HEAD, title=title, title_justify="left"
        )
        each_s = {name: _predicted_s(setup, engine, name, prepared) for name in setup.systems}
        for name, system in setup.systems.items():
            specs = system.plan(setup.engine).instances
            num_devices = len({spec.device for spec in specs}) * engine.info().num_devices
            table.add_row(name, str(len(specs)), str(num_devices), str(num_servings), f"{each_s[name]:.3g}")
        console.print(table)
        total_s = num_servings * sum(each_s.values())
        kind = "of virtual time" if setup.runtime.is_virtual else "to serve, and the start of every instance"
        more = "" if setup.repeats.interval_width is None else "; more until the interval is narrow"
        console.print(
            f"{num_servings * len(each_s)} servings, about {_duration(total_s)} {kind}{more}", highlight=False
        )
        console.print("Nothing was started.")


def _predicted_s(setup: Setup, engine: CostModelFactory, name: str, prepared: Prepared) -> float:
    """From start to stop, on the cost model."""
    last_s = 0.0

    def sink(event: Event) -> None:
        nonlocal last_s
        last_s = max(last_s, event.time_s)

    virtual = replace(setup, engine=engine, runtime=Sim(hardware=engine.hardware))
    requests = Prepared(prepared.requests, engine.sized(len(setup.systems[name].plan(engine).instances)), None)
    serve(virtual, name, requests, EventLog(sink), Path(), lambda facts: None, lambda num_ended, num_tokens: None)
    return last_s


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"
