"""Where results go beside the run folder: nowhere, or to Weights & Biases."""

import json
from enum import Enum
from pathlib import Path
from typing import Any, Protocol


class Tracking(Protocol):
    def publish(self, run_folder: Path, config: dict[str, Any], tables: dict[str, Any]) -> None:
        """Send a finished run: its configuration, metrics, figures, and `tables` (name to pandas DataFrame)."""


class NoTracking:
    """The run folder is all."""

    def publish(self, run_folder: Path, config: dict[str, Any], tables: dict[str, Any]) -> None:
        """Nothing to send."""


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


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by slashes, as W&B groups them."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
