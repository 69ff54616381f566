"""Write what is known of a run into its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tetribench.report import validity
from tetribench.report.digest import read_digest
from tetribench.report.figures import draw_run
from tetribench.report.frames import request_frame
from tetribench.report.html import run_page
from tetribench.report.runs import Run, load_run
from tetribench.report.side_by_side import draw, page, ratio_frame


def write_report(run_dir: Path, *, allow_partial: bool = False) -> Run:
    """Measure the run at `run_dir` and write its report into it.

    metrics.json, validity.json, requests.parquet, figures/ and report.html.

    Raises ValueError as `load_run` does.
    """
    run = load_run(run_dir, allow_partial=allow_partial)
    document = run.document
    _write_json(run_dir / "metrics.json", document)
    _write_json(run_dir / "validity.json", validity.document(run))
    request_frame(run.served).to_parquet(run_dir / "requests.parquet", index=False)
    figures = run_dir / "figures"
    figures.mkdir(exist_ok=True)
    (run_dir / "report.html").write_text(run_page(run, document, draw_run(run, figures)), encoding="utf-8")
    return run


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_side_by_side(run_dirs: Sequence[Path], out_dir: Path) -> None:
    """Compare several complete runs: side_by_side.html, side_by_side.csv and figures/ in `out_dir`.

    Raises ValueError as `read_digest` does, where the runs have no common baseline, and where one of them is INVALID.
    """
    runs = [read_digest(run_dir) for run_dir in run_dirs]
    for run in runs:
        if run.codes:
            codes = ", ".join(run.codes)
            raise ValueError(f"{run.path}: the run is INVALID ({codes}); only valid runs are compared, leave it out")
    frame = ratio_frame(runs)
    figures = out_dir / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out_dir / "side_by_side.csv", index=False)
    (out_dir / "side_by_side.html").write_text(page(runs, frame, draw(runs, frame, figures)), encoding="utf-8")
