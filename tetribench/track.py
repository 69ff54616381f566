"""Where results go beside the run folder: nowhere, or to Weights & Biases."""

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol


class Tracking(Protocol):
    def publish(self, run_folder: Path, config: dict[str, Any], tables: dict[str, Any]) -> None:
        """Send a finished run: its configuration, metrics, figures, and `tables` (name to pandas DataFrame), among them
        those of the `PANELS`."""


class NoTracking:
    """The run folder is all."""

    def publish(self, run_folder: Path, config: dict[str, Any], tables: dict[str, Any]) -> None:
        """Nothing to send."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart over columns of one of the tables: a bar for each `x`, a scatter, or a line for each value of `by`."""

    name: str
    title: str
    kind: str
    table: str
    x: str
    y: str
    by: str | None = None


PANELS = (
    Panel("ratios", "Ratio to the baseline", "bar", "ratios", "metric", "ratio"),
    Panel("ttft", "TTFT: share of requests at or below", "line", "ttft_curves", "seconds", "share", "system"),
    Panel("jct", "JCT: share of requests at or below", "line", "jct_curves", "seconds", "share", "system"),
    Panel("pareto", "Output per device against interactivity", "scatter", "servings", "interactivity", "throughput"),
)
"""Drawn by W&B itself; where their table is empty they are left out."""


class Mode(Enum):
    """Of the W&B client; offline runs can be sent later with `wandb sync`."""

    offline = "offline"
    online = "online"


class WandbTracking:
    """One W&B run for each run folder."""

    def __init__(self, *, project: str = "tetribench", mode: Mode = Mode.offline, group: str | None = None) -> None:
        self.project = project
        self.mode = mode
        self.group = group

    def publish(self, run_folder: Path, config: dict[str, Any], tables: dict[str, Any]) -> None:
        import wandb

        metrics = json.loads((run_folder / "metrics.json").read_text())
        with wandb.init(
            project=self.project,
            group=self.group,
            name=run_folder.name,
            mode=self.mode.value,
            dir=run_folder,
            config=config,
            settings=wandb.Settings(silent=True),
        ) as run:
            for system, summary in metrics["systems"].items():
                run.summary.update(_flat({system: summary}))
            run.log(
                {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted(run_folder.glob("figures/*.png"))}
            )
            run.log({f"tables/{name}": wandb.Table(dataframe=table) for name, table in tables.items()})
            panels = [panel for panel in PANELS if len(tables[panel.table])]
            run.log({f"panels/{panel.name}": _chart(panel, tables[panel.table]) for panel in panels})
            specification = wandb.Artifact(f"panels-{run.id}", type="panels", metadata={"tables": sorted(tables)})
            with specification.new_file("panels.json") as file:
                json.dump([asdict(panel) for panel in panels], file, indent=2)
            run.log_artifact(specification)


def _chart(panel: Panel, data: Any) -> Any:
    import wandb

    table = wandb.Table(dataframe=data)
    if panel.kind == "bar":
        return wandb.plot.bar(table, panel.x, panel.y, title=panel.title)
    if panel.kind == "scatter":
        return wandb.plot.scatter(table, panel.x, panel.y, title=panel.title)
    return wandb.plot.line(table, panel.x, panel.y, stroke=panel.by, title=panel.title)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by slashes, as W&B groups them."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
