"""`task=plan`: which runs there would be, how long they would take and on what, before anything is started."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tetribench.core.events import Event, EventLog
from tetribench.engine.base import EngineFactory
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.sharing import Sharing
from tetribench.experiment import Composed, Prepared, Setup, prepare, serve
from tetribench.instance.runtime import Sim


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
            shown = "not predicted" if math.isnan(each_s[name]) else f"{each_s[name]:.3g}"
            table.add_row(name, str(len(specs)), str(num_devices), str(num_servings), shown)
        console.print(table)
        total_s = num_servings * sum(seconds for seconds in each_s.values() if not math.isnan(seconds))
        kind = "of virtual time" if setup.runtime.is_virtual else "to serve, and the start of every instance"
        more = "" if setup.repeats.interval_width is None else "; more until the interval is narrow"
        console.print(
            f"{num_servings * len(each_s)} servings, about {_duration(total_s)} {kind}{more}", highlight=False
        )
        console.print("Nothing was started.")


def _predicted_s(setup: Setup, engine: CostModelFactory, name: str, prepared: Prepared) -> float:
    """From start to stop, on the cost model; NaN for servers of others and for instances that compute on one device at
    the same time, whose time nothing here predicts."""
    own = setup.systems[name].plan(setup.engine)
    if own.launch is not None or own.sharing not in (Sharing.none, Sharing.time_slicing):
        return math.nan
    last_s = 0.0

    def sink(events: Iterable[Event]) -> None:
        nonlocal last_s
        last_s = max([last_s, *(event.time_s for event in events)])

    virtual = replace(setup, engine=engine, runtime=Sim(hardware=engine.hardware))
    requests = Prepared(prepared.requests, engine.sized(len(setup.systems[name].plan(engine).instances)), None)
    serve(virtual, name, requests, EventLog(sink), Path(), lambda facts: None, lambda num_ended, num_tokens: None)
    return last_s


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"
