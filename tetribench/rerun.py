"""`task=rerun`: a finished run once more, and whether the result is the same."""

from pathlib import Path
from typing import Any

from rich.console import Console

from tetribench.experiment import Composed, ExperimentsFailed, run


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
