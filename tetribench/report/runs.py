"""From a run folder on disk to everything known about the run, measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tetribench.metrics.client_error import ClientError
from tetribench.metrics.compare import Summary, SystemResult
from tetribench.metrics.document import metrics_document
from tetribench.metrics.paired import Compared, Outcome, Served, compare, serving_values
from tetribench.metrics.pooled import pool
from tetribench.metrics.validity import Validity, judge
from tetribench.report.facts import Facts, Manifest, Status, read_facts, read_json
from tetribench.report.servings import measure_run

MAX_ABREAST = 3
"""So many systems fit beside each other as columns of a table of values and ratios."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. `baseline` and `notes` are those of `facts`, unless the run is partial and lacks a system.

    Of `served` only the first serving of each system keeps its iterations and transfers. `client` is None where the
    client was not calibrated. An INVALID run has ratios and no outcomes.
    """

    path: Path
    facts: Facts
    status: Status
    baseline: str
    notes: list[str]
    config_yaml: str
    environment: dict[str, Any]
    manifests: dict[str, Manifest]
    served: list[Served]
    compared: list[Compared]
    client: ClientError | None
    validity: Validity

    @property
    def results(self) -> list[SystemResult]:
        """The first serving of each system, in the order of the run's systems."""
        return [next(one.result for one in self.served if one.result.system == system) for system in self.systems]

    @property
    def requests(self) -> dict[str, list[pd.DataFrame]]:
        """The request tables of every serving, by system in the order of the run's."""
        return {system: [one.result.requests for one in self._servings(system)] for system in self.systems}

    @cached_property
    def pooled(self) -> dict[str, Summary]:
        """By system all its servings as one, as `metrics.pooled` has them."""
        return {system: pool(self._servings(system), self.facts.cost) for system in self.systems}

    def _servings(self, system: str) -> list[Served]:
        return [one for one in self.served if one.result.system == system]

    @property
    def systems(self) -> list[str]:
        """Those that were measured."""
        measured = {one.result.system for one in self.served}
        return [system for system in self.facts.systems if system in measured]

    @property
    def document(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return metrics_document(
            self.results,
            self.compared,
            serving_values(self.served, self.baseline),
            pooled=self.pooled,
            baseline=self.baseline,
            rule=self.facts.verdict,
            num_repeats=self.num_repeats,
        )

    @property
    def num_repeats(self) -> int:
        return len({one.repeat for one in self.served})

    @property
    def is_served_again(self) -> bool:
        """Some system was served more than once."""
        return len(self.served) > len(self.systems)

    @property
    def is_complete(self) -> bool:
        return self.status.state == "complete"

    @property
    def is_virtual(self) -> bool:
        return self.facts.is_virtual

    @property
    def time_kind(self) -> str:
        return self.facts.time_kind

    @property
    def others(self) -> list[str]:
        """The systems that are compared with the baseline."""
        return [system for system in self.systems if system != self.baseline]

    @property
    def has_many_systems(self) -> bool:
        """More systems than can stand abreast."""
        return len(self.systems) > MAX_ABREAST


def load_run(path: Path, *, allow_partial: bool = False) -> Run:
    """Read and measure the run at `path`.

    Raises ValueError, in one line, where it is no run folder, has another schema version, is damaged, or did not
    complete. With `allow_partial` a run that did not complete is read as far as it came.
    """
    if not (path / "status.json").is_file():
        raise ValueError(f"{path}: not a run folder (it has no status.json)")
    facts, status = read_facts(path), read_json(path / "status.json", Status)
    is_complete = status.state == "complete"
    if not is_complete and not allow_partial:
        reason = f" ({status.reason})" if status.reason else ""
        raise ValueError(f"{path}: the run is {status.state}{reason}; only a complete run is reported")
    served, notes = measure_run(path, facts, is_complete)
    measured = {one.result.system for one in served}
    baseline = facts.baseline
    if baseline not in measured:
        if is_complete:
            raise ValueError(f"{path}: baseline={baseline} is not among the systems of the run: {', '.join(measured)}")
        baseline = next(system for system in facts.systems if system in measured)
        notes.append(f"The baseline {facts.baseline} was not measured; ratios are to {baseline}.")
    config, environment, calibrated = path / "config.yaml", path / "environment.json", path / "client.json"
    compared = compare(served, baseline, facts.verdict, facts.seed)
    client = read_json(calibrated, ClientError) if calibrated.is_file() else None
    validity = judge(
        served,
        compared,
        client,
        baseline=baseline,
        rule=facts.verdict,
        limits=facts.limits,
        is_virtual=facts.is_virtual,
    )
    return Run(
        path=path,
        facts=facts,
        status=status,
        baseline=baseline,
        notes=[*facts.notes, *notes],
        config_yaml=config.read_text() if config.is_file() else "",
        environment=read_json(environment, dict[str, Any]) if environment.is_file() else {},
        manifests={system: _manifest(path, facts, system) for system in facts.systems if system in measured},
        served=served,
        compared=compared if validity.is_valid else [_without_outcomes(row) for row in compared],
        client=client,
        validity=validity,
    )


def serving_names(served: Sequence[Served]) -> list[str]:
    """Of each its system, and which of its servings it is where some system has several."""
    is_again = len(served) > len({one.result.system for one in served})
    return [f"{one.system} (repeat {repeat}, slot {slot})" if is_again else one.system for repeat, slot, one in served]


def _without_outcomes(row: Compared) -> Compared:
    """Whatever the ratios of an INVALID run are, they say nothing."""
    ratios = {
        system: replace(ratio, outcome=Outcome.UNDECIDED) if ratio.outcome else ratio
        for system, ratio in row.ratios.items()
    }
    return replace(row, ratios=ratios)


def _manifest(path: Path, facts: Facts, system: str) -> Manifest:
    """Of its first serving. A system that did not get ready has none."""
    folders = [slot.folder for repeat in facts.repeats for slot in repeat.slots if slot.system == system]
    found = path / folders[0] / "manifest.json"
    return read_json(found, Manifest) if found.is_file() else Manifest(instances={}, options={})
