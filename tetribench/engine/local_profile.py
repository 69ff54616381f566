"""`hardware=local`: the profile that `tetribench task=calibrate` measured on this machine."""

import json
from pathlib import Path
from typing import Any

from tetribench.engine.hardware import Hardware

PROFILE_FORMAT = 2


class LocalProfile(Hardware):
    """The constants in the file `path`, which `task=calibrate` wrote.

    Its `chunk_size` is that of the model `model_name` alone; a profile that an earlier version wrote has none.
    `machines` says what the machine did while they were measured, by what was: the fields of `MachineState`. So many
    engines as `num_busy` were at work at once; by itself one has the constants `engine_by_itself`.
    """

    def __init__(self, *, path: str = "reports/local/profile.json") -> None:
        if not Path(path).is_file():
            raise ValueError(f"hardware.path={path}: there is no such file; write one with: tetribench task=calibrate")
        try:
            profile = json.loads(Path(path).read_text())
            if profile["format"] != PROFILE_FORMAT:
                raise ValueError
            super().__init__(**profile["constants"], chunk_size=profile.get("chunk", {}).get("chunk_size"))
            self.model_name: str = profile["model"]
            self.num_busy: int = profile["num_busy"]
            self.engine_by_itself: dict[str, Any] = profile["engine_by_itself"]
            self.machines: dict[str, dict[str, Any]] = profile["machine"]
        except (ValueError, TypeError, LookupError):
            raise ValueError(
                f"hardware.path={path}: not a profile of this version; write it anew with task=calibrate"
            ) from None
        self.path = Path(path)
