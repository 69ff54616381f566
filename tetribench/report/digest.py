"""A run as it stands beside others: what its report has found, read from its folder and not measured again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tetribench.metrics.document import SCHEMA_VERSION
from tetribench.metrics.paired import POINT_VALUES
from tetribench.report.facts import Facts, Status, read_facts, read_json
from tetribench.report.figure_pareto import points_frame
from tetribench.report.runs import Run, load_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """One complete run. `codes` are why it is INVALID; `comparison` and `servings` are those of metrics.json."""

    path: Path
    facts: Facts
    baseline: str
    codes: list[str]
    comparison: list[dict[str, Any]]
    servings: list[dict[str, Any]]

    @property
    def others(self) -> list[str]:
        """The systems that are compared with the baseline."""
        measured = {one["system"] for one in self.servings}
        return [system for system in self.facts.systems if system in measured and system != self.baseline]

    @property
    def num_repeats(self) -> int:
        return len({one["repeat"] for one in self.servings})

    @property
    def points(self) -> pd.DataFrame:
        """Of each serving what a device delivers and what a user sees, as `serving_points` has it of a run."""
        return points_frame((one["system"], one["values"]) for one in self.servings)


def digest(run: Run) -> Digest:
    document = run.document
    return Digest(
        path=run.path,
        facts=run.facts,
        baseline=run.baseline,
        codes=[str(code) for code in run.validity.codes],
        comparison=document["comparison"],
        servings=document["servings"],
    )


def read_digest(path: Path) -> Digest:
    """Of the run at `path`. Where its report is missing, from before its logs, or of another version, it is measured.

    Raises ValueError as `load_run` does.
    """
    if not _is_reported(path):
        return digest(load_run(path))
    metrics = read_json(path / "metrics.json", dict[str, Any])
    if metrics.get("schema_version") != SCHEMA_VERSION or not _has_points(metrics.get("servings", ())):
        return digest(load_run(path))
    return Digest(
        path=path,
        facts=read_facts(path),
        baseline=metrics["baseline"],
        codes=read_json(path / "validity.json", dict[str, Any])["codes"],
        comparison=metrics["comparison"],
        servings=metrics["servings"],
    )


def _is_reported(path: Path) -> bool:
    """The run is complete, and its report was written after everything that it is made of."""
    reports, status = [path / name for name in ("metrics.json", "validity.json")], path / "status.json"
    if not all(file.is_file() for file in (*reports, status)) or read_json(status, Status).state != "complete":
        return False
    sources = [path / "run.json", *path.glob("repeats/*/requests.jsonl"), *path.glob("repeats/*/*/events.jsonl")]
    written_ns = min(file.stat().st_mtime_ns for file in reports)
    return all(file.is_file() and file.stat().st_mtime_ns <= written_ns for file in sources)


def _has_points(servings: Sequence[dict[str, Any]]) -> bool:
    """Older reports have the headline metrics alone."""
    return bool(servings) and all(one["values"].keys() >= POINT_VALUES for one in servings)
