"""What single dispatches of a real run cost, as far as the cost model knows.

Recorded arrivals and dispatches are replayed in virtual time, with one dispatch changed at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from tetribench.core.events import Event, EventKind
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.core.seeds import Generator
from tetribench.core.sequence import LengthRange
from tetribench.drive.loadgen import OpenLoop
from tetribench.experiment import Composed, Prepared, Setup
from tetribench.fidelity.twin import twin_requests
from tetribench.metrics.intervals import repeated_interval
from tetribench.metrics.log import read_events
from tetribench.metrics.regret import Regret
from tetribench.prefill.dispatch import Choice, Dispatcher
from tetribench.report.facts import Facts, Status, read_facts, read_json
from tetribench.report.terminal import frame_table
from tetribench.study.branches import Key, Later, Numbering, RecordedRun
from tetribench.study.regret import SCOPES, decision_rows, jct_s
from tetribench.study.simulate import Row
from tetribench.systems.tetri import Tetri
from tetribench.workload.files import read

LEFT_OUT = frozenset({"runtime", "hardware", "engine", "device", "task", "out", "name", "resume", "progress", "track"})
"""Options of the recorded run that virtual time has not got, or that the command says itself."""

KEPT = "hardware.kv_memory_gib"


class Follower:
    """A dispatcher that sends every request of a record where it was sent, and as `policy` says where there is none, or
    that instance is gone. `recorded` are the instance and the candidates of each decision."""

    def __init__(self, policy: Dispatcher, recorded: Mapping[Key, tuple[str, tuple[str, ...]]]) -> None:
        self._policy = policy
        self._recorded = recorded
        self._numbering = Numbering()

    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        choice = self._policy.choose(request, predicted, loads, rng)
        to, candidates = self._recorded.get(self._numbering.key(request), (None, ()))
        return choice if to not in loads else replace(choice, to=to, candidates=candidates)


class RunRegret:
    """Regrets of the dispatches of the real run in the folder `run`, into `out`.

    Of each of its servings `num_decisions` decisions are looked at, one out of each of so many equal stretches. The run
    is repeated in virtual time on the cost model `hardware`, with the recorded arrivals and dispatches, and then with
    that one decision changed.
    """

    def __init__(
        self, *, run: str, hardware: str = "local", num_decisions: int = 20, out: str = "reports/run_regret"
    ) -> None:
        if num_decisions < 1:
            raise ValueError(f"task.num_decisions={num_decisions}: must be at least 1")
        self.run = Path(run)
        self.hardware = hardware
        self.num_decisions = num_decisions
        self.out = out

    def execute(self, composed: Composed, console: Console) -> None:
        facts = self._facts()
        overrides = [one for one in facts.overrides if _is_kept(one)]
        setup = composed.again([*overrides, "runtime=sim", f"hardware={self.hardware}"]).setup()
        rows = pd.DataFrame(
            [
                row
                for number, repeat in enumerate(facts.repeats)
                for slot in repeat.slots
                if slot.system in self._deciding(setup)
                for row in self._rows(setup, slot.system, number, self.run / slot.folder)
            ]
        )
        if rows.empty:
            raise ValueError(f"task.run={self.run}: no dispatch of it had a second instance to choose")
        table, folder = regret_table(rows), Path(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in {"run_regret": table, "run_regret_rows": rows}.items():
            frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        console.print(frame_table(f"Regret of a dispatch: {facts.name}", table))
        console.print(statement(rows, self.hardware), highlight=False)
        console.print(f"{folder / 'run_regret.csv'}", soft_wrap=True)

    def _facts(self) -> Facts:
        facts = read_facts(self.run)
        state = read_json(self.run / "status.json", Status).state
        if state != "complete":
            raise ValueError(f"task.run={self.run}: the run is {state}; must be complete")
        if facts.is_virtual:
            raise ValueError(
                f"task.run={self.run}: the run is in virtual time; must be in real time, as runtime=process is "
                "(of virtual time +experiment=regret looks at dispatches)"
            )
        if not facts.overrides:
            raise ValueError(f"task.run={self.run}: run.json does not say with which options it was made")
        return facts

    def _deciding(self, setup: Setup) -> list[str]:
        """The systems that dispatch to several instances."""
        found = [
            name
            for name, system in setup.systems.items()
            if isinstance(system, Tetri) and system.num_instances[Role.decode] > 1
        ]
        if not found:
            raise ValueError(
                f"task.run={self.run}: no system of it dispatches to several decode instances; must be one with "
                "system.tetri.num_decode of at least 2"
            )
        return found

    def _rows(self, setup: Setup, name: str, repeat: int, folder: Path) -> list[Row]:
        """Of one serving of system `name`."""
        events = read_events(folder / "events.jsonl")
        system = setup.systems[name]
        assert isinstance(system, Tetri), "others decide nothing"
        engine = setup.engine.sized(len(system.plan(setup.engine).instances))
        self._check_memory(events, engine.num_blocks())
        requests = twin_requests(read(self.run / "repeats" / str(repeat) / "requests.jsonl"), events)
        replayed = RecordedRun(
            replace(setup, systems={name: system}, drive=OpenLoop()),
            Prepared(requests, engine, None),
            lambda policy: Follower(policy, recorded_choices(events)),
        )
        measured_s = jct_s(events)
        about = {"system": name, "repeat": repeat, "serving": folder.name}
        about |= {"measured_mean_jct_s": sum(measured_s.values()) / len(measured_s)}
        rows = decision_rows(replayed, events, self.num_decisions, setup.seed + repeat, Later.kept)
        return [about | row for row in rows]

    def _check_memory(self, events: Sequence[Event], num_blocks: int) -> None:
        recorded = {e.details.get("num_blocks") for e in events if e.kind is EventKind.INSTANCE_READY}
        if recorded != {num_blocks}:
            found = ", ".join(map(str, recorded))
            raise ValueError(
                f"task.hardware={self.hardware}: virtual time has {num_blocks} KV blocks, the run had {found}; must be "
                "the same"
            )


def _is_kept(override: str) -> bool:
    name = override.lstrip("+~").partition("=")[0]
    return name == KEPT or name.partition("@")[0].partition(".")[0] not in LEFT_OUT


def recorded_choices(events: Sequence[Event]) -> dict[Key, tuple[str, tuple[str, ...]]]:
    """By decision where it sent the request, and all candidates."""
    numbering, found = Numbering(), dict[Key, tuple[str, tuple[str, ...]]]()
    for event in events:
        if event.kind is EventKind.DISPATCHED:
            key = numbering.next(event.requests[0])
            found[key] = (event.details["to"], tuple(sorted(event.details["candidates"])))
    return found


def regret_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each system, scope and comparison.

    It has the mean over the decisions of a serving, then over repeats, with its 95 % interval.
    """
    found = []
    for system, own in rows.groupby("system", sort=False):
        for scope in SCOPES:
            for against in Regret._fields:
                column = f"{scope}_{against}_s"
                means = own.groupby(["repeat", "serving"])[column].mean().dropna().reset_index()
                values = list(zip(means["repeat"], means[column], strict=True))
                if values:
                    found.append((system, scope, against, *repeated_interval(values), len(own)))
    return pd.DataFrame(found, columns=["system", "scope", "against", "regret_s", "low_s", "high_s", "num_decisions"])


def statement(rows: pd.DataFrame, hardware: str) -> str:
    """Whose regrets these are, and how far the cost model is from what was measured."""
    servings = rows.groupby(["system", "repeat", "serving"])[["mean_jct_s", "measured_mean_jct_s"]].first().mean()
    return (
        f"These regrets are the cost model's (hardware={hardware}), not the machine's: the recorded arrivals and "
        "dispatches were replayed in virtual time, and nothing was served again. The mean JCT of the replay is "
        f"{servings['mean_jct_s']:.3g} s, the measured one {servings['measured_mean_jct_s']:.3g} s."
    )
