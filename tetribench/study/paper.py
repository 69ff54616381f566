"""All experiments of a list, the paper's claims judged by them, and one report."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tetribench.config import conf_folder, options_of
from tetribench.experiment import Composed, ExperimentsFailed
from tetribench.paper.claims import Claim, check_claims, load_claims
from tetribench.paper.page import claims_numbers, page, stamp
from tetribench.paper.verdicts import Judged, claims_frame, judge
from tetribench.provenance import commit
from tetribench.report.finding import Finding
from tetribench.report.style import shorten
from tetribench.study.base import Study
from tetribench.study.sensitivity import CLAIMS


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    study: Study
    composed: Composed


class Paper:
    """`experiments` are names, each perhaps with options of its own: `fig11 task.seeds=[0,1]`.

    One that fails is left out, and said at the end. Each is written once it is done; the report comes last.
    """

    def __init__(self, *, experiments: list[str], out: str) -> None:
        if not experiments:
            raise ValueError("task.experiments=[]: name at least one experiment")
        self.experiments = experiments
        self.out = out

    def execute(self, composed: Composed, console: Console) -> None:
        parts = [_part(composed, entry) for entry in self.experiments]
        claims = load_claims(conf_folder() / CLAIMS)
        _check(claims, parts)
        folder = Path(self.out)
        findings, failures = _run_all(parts, folder, console)
        rows = {finding.name: finding.rows for finding in findings}
        judged = [judge(claim, rows, failures) for claim in claims]
        _write(folder, findings, judged, failures)
        console.print(claims_numbers(judged))
        console.print(f"{folder / 'report.html'}", soft_wrap=True)
        if failures:
            raise ExperimentsFailed(
                "; ".join(f"experiment={name} failed: {reason}" for name, reason in failures.items())
            )


def _part(composed: Composed, entry: str) -> _Part:
    """Raises ValueError where it is not an experiment with a figure."""
    name, *overrides = shlex.split(entry)
    own = composed.experiment(name, overrides)
    study = own.task()
    if not isinstance(study, Study):
        raise ValueError(f"task.experiments: {name} draws no figure of its own, and cannot be part of the report")
    return _Part(name, study, own)


def _check(claims: Sequence[Claim], parts: Sequence[_Part]) -> None:
    axes = {part.name: part.composed.axes() for part in parts}
    quantities = {part.name: getattr(part.study.figure, "quantities", None) for part in parts}
    metrics = {name: frozenset(own) for name, own in quantities.items() if own is not None}
    check_claims(claims, options_of("experiment"), axes, metrics)


def _run_all(parts: Sequence[_Part], folder: Path, console: Console) -> tuple[list[Finding], dict[str, str]]:
    """What was found, and by experiment why there is nothing."""
    findings, failures = [], {}
    for number, part in enumerate(parts, 1):
        started_s = time.perf_counter()
        try:
            finding = part.study.find(part.composed, console)
            finding.write(folder)
        except Exception as error:  # the others are still worth having
            failures[part.name] = (str(error) or type(error).__name__).partition("\n")[0]
            if not isinstance(error, ValueError):
                console.print_exception()
            outcome = f"failed: {failures[part.name]}"
        else:
            findings.append(finding)
            outcome = finding.title
        spent_s = time.perf_counter() - started_s
        console.print(
            f"{number:2}/{len(parts)} {part.name:<16}{spent_s:5.0f} s  {escape(shorten(outcome, 45))}", highlight=False
        )
    return findings, failures


def _write(folder: Path, findings: Sequence[Finding], judged: Sequence[Judged], failures: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    claims_frame(judged).to_csv(folder / "claims.csv", index=False, float_format="%.6g")
    made = stamp(datetime.now(UTC), commit())
    (folder / "report.html").write_text(page(findings, judged, failures, folder, made), encoding="utf-8")
