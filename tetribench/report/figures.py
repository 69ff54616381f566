"""All figures of a run: drawn once, kept as files, and ready to stand inside a page."""

import base64
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tetribench.report.figure_instances import resource_bars, timeline
from tetribench.report.figure_latency import latency_by_class, latency_cdfs
from tetribench.report.figure_ledger import ledger_bars
from tetribench.report.figure_many import class_rows, latency_grid
from tetribench.report.figure_pareto import pareto, serving_points
from tetribench.report.runs import Run
from tetribench.report.style import SYSTEMS, drawing, mark, save, system_looks
from tetribench.report.wording import stamps


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure on disk. `data_uri` holds it whole, as SVG or PNG, whichever is smaller; sizes are in CSS pixels."""

    title: str
    caption: str
    data_uri: str
    width_px: int
    height_px: int


CDFS = (
    "Time to first token and job completion time of every request, from its intended arrival. A curve further to the "
    "left is better; one that ends below 1 belongs to a system in which requests failed or did not end. Curves are of "
    "all servings of a system, bands the range of each by itself."
)
BARS = (
    "Each bar is a system's resource usage time: from the first arrival to the last work of each of its instances, "
    "summed. Prefill, decode and mixed are iterations by what they computed; the rest is idle, and includes time in "
    "which an instance only sent KV."
)
LEDGER = (
    "Each bar is an instance from its start to its stop, summed over the servings of its system. What it does comes "
    "before why it does nothing: the predictor and KV on its way from or to the instance count where no iteration "
    "runs, waiting where nothing happens at all."
)
TIMELINE = (
    "Iterations of each instance since the first arrival; the strip at the bottom of a row is KV that the instance "
    "sends. Gaps too narrow to print are closed. Pale is what lies before and after a system's steady state."
)
PARETO = (
    "Further up is more output for each device, further to the right is a faster stream for each user. Small marks are "
    "servings, the large one is the mean of a system, its lines span the servings. Axes do not start at 0."
)
CLASSES = (
    "A box holds the middle half of the requests with the median in it; whiskers reach the 10th and the 90th "
    "percentile; dots, if any, are requests beyond them. All servings of a system together; the number of its requests "
    "stands beside the class."
)


FIRST = "Of each system's first serving."


def draw_run(run: Run, folder: Path) -> list[Drawn]:
    """Draw every figure that this run has something for, into `folder`, as SVG and PNG."""
    looks, subtitle = system_looks(run.systems, run.baseline), run_subtitle(run)
    requests = {system: pd.concat(tables) for system, tables in run.requests.items()}
    first, of_first = run_subtitle(run, "first serving"), f" {FIRST}" if run.is_served_again else ""
    is_crowded = len(looks) > len(SYSTEMS)
    with drawing():
        if is_crowded:
            cdfs, classes = latency_grid(requests, run.baseline, subtitle), class_rows(requests, looks, subtitle)
        else:
            cdfs, classes = (
                latency_cdfs(run.requests, looks, subtitle),
                latency_by_class(requests, looks, subtitle),
            )
        figures = [
            (cdfs, "latency_cdf", CDFS),
            (pareto(serving_points(run), looks, subtitle), "pareto", PARETO),
            (resource_bars(run.results, first), "resource_time", BARS + of_first),
            (ledger_bars(run.pooled, subtitle), "ledger", LEDGER),
            (timeline(run.results, first), "timeline", TIMELINE + of_first),
            (classes, "latency_by_class", CLASSES),
        ]
        drawn = [(figure, stem, caption) for figure, stem, caption in figures if figure is not None]
        for figure, *_ in drawn if not run.validity.is_valid else ():
            mark(figure, "INVALID")
        return [keep(figure, folder, stem, caption) for figure, stem, caption in drawn]


def run_subtitle(run: Run, part: str = "") -> str:
    """Workload, number of requests, kind of time; a run that did not complete, or does not count, says so.

    `part` is which of its servings are shown, where a system was served more than once.
    """
    parts = [run.facts.workload, f"{run.facts.num_requests:,} requests", run.time_kind]
    return " · ".join((*stamps(run), *parts, *([part] if part and run.is_served_again else [])))


def keep(figure: Figure, folder: Path, stem: str, caption: str) -> Drawn:
    """Save a figure and make it ready for a page."""
    return embedded(figure, save(figure, folder, stem), caption)


def embedded(figure: Figure, files: tuple[Path, Path], caption: str) -> Drawn:
    """A figure that was saved as these files, SVG and PNG, ready for a page."""
    svg, png = files
    uris = (_data_uri(svg, "image/svg+xml"), _data_uri(png, "image/png"))
    width_in, height_in = figure.get_size_inches()
    return Drawn(figure.texts[0].get_text(), caption, min(uris, key=len), round(width_in * 96), round(height_in * 96))


def _data_uri(path: Path, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"
