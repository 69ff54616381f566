"""What one call of the command does."""

from glob import glob
from pathlib import Path
from typing import Protocol

from rich.console import Console

from tetribench.config import conf_folder
from tetribench.experiment import Composed, InvalidRun, prepare, run
from tetribench.workload.files import write

MARKS = "marks.yaml"
"""Among the option files: what benchmarks are held to."""


class Task(Protocol):
    def execute(self, composed: Composed, console: Console) -> None:
        """Do it."""


class Run:
    """Serve the workload on every system and report."""

    def execute(self, composed: Composed, console: Console) -> None:
        built = composed.setup()
        folder = run(composed, console)
        from tetribench.report.figure_pareto import serving_points  # pandas: after the run
        from tetribench.report.frames import (
            class_frame,
            comparison_frame,
            curve_frame,
            ledger_frame,
            ratio_frame,
            resource_frame,
        )
        from tetribench.report.terminal import comparison
        from tetribench.report.verdict import verdict_sentences
        from tetribench.report.write import write_report

        finished = write_report(folder)
        console.print(comparison(finished))
        for sentence in verdict_sentences(finished):
            console.print(sentence, highlight=False)
        console.print(f"{folder / 'report.html'}", soft_wrap=True)
        pooled = finished.pooled
        tables = {
            "comparison": comparison_frame(finished),
            "classes": class_frame(pooled),
            "resources": resource_frame(pooled),
            "ledger": ledger_frame(pooled),
            "ratios": ratio_frame(finished),
            "ttft_curves": curve_frame(finished.requests, "ttft_s"),
            "jct_curves": curve_frame(finished.requests, "jct_s"),
            "servings": serving_points(finished),
        }
        built.track.publish(folder, built.resolved().options, tables)
        if not finished.validity.is_valid:
            codes = ", ".join(finished.validity.codes)
            raise InvalidRun(f"INVALID ({codes}): {finished.validity.reasons[0].in_words}")


class Report:
    """Draw finished runs side by side in `out`. `runs` are run folders, or patterns that match some.

    Of a single run the report is drawn again in its own folder; one that was interrupted or failed is stamped so. Of a
    folder of benchmarks (`make bench`) it is their table of marks, in that folder.
    """

    def __init__(self, *, runs: list[str] | None = None, out: str = "reports/side_by_side") -> None:
        self.runs = runs or []
        self.out = out

    def execute(self, composed: Composed, console: Console) -> None:
        from tetribench.report.marks import is_bench
        from tetribench.report.write import write_report, write_side_by_side

        if not self.runs:
            raise ValueError("task.runs: name at least one run folder, as in task.runs=[reports/runs/NAME]")
        folders = [Path(match) for pattern in self.runs for match in sorted(glob(pattern)) or [pattern]]  # noqa: PTH207 (absolute patterns)
        if any(map(is_bench, folders)):
            _report_marks(folders, console)
            return
        if len(folders) == 1:
            write_report(folders[0], allow_partial=True)
            console.print(f"{folders[0] / 'report.html'}", soft_wrap=True)
            return
        write_side_by_side(folders, Path(self.out))
        console.print(f"{Path(self.out) / 'side_by_side.html'}", soft_wrap=True)


def _report_marks(folders: list[Path], console: Console) -> None:
    from tetribench.report.marks import load_marks
    from tetribench.report.marks_page import marks_table, write_marks

    if len(folders) > 1:
        raise ValueError("task.runs: a folder of benchmarks is reported by itself; name it alone")
    console.print(marks_table(write_marks(folders[0], load_marks(conf_folder() / MARKS))))
    console.print(f"{folders[0] / 'marks.html'}", soft_wrap=True)


class Generate:
    """Write the workload's requests (lengths and arrivals) to the file `out`."""

    def __init__(self, *, out: str) -> None:
        self.out = out

    def execute(self, composed: Composed, console: Console) -> None:
        requests = prepare(composed.setup()).requests
        write(requests, Path(self.out))
        console.print(f"{self.out}: {len(requests.requests)} requests, fingerprint {requests.fingerprint()[:12]}")
