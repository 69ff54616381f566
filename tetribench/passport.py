"""What makes two runs the same run: everything that was configured, the requests, and the code."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import tetribench
from tetribench.provenance import commit

WITHOUT_EFFECT = ("out", "name", "progress", "track", "task", "axes", "resume")
"""Options that say where a run goes and who is told of it."""


def passport(options: Mapping[str, Any], requests_fingerprint: str) -> dict[str, Any]:
    """`options` is the whole configuration, resolved, as plain values; the requests are those of the first repeat, from
    whose seed the others follow."""
    configured = {name: value for name, value in options.items() if name not in WITHOUT_EFFECT}
    text = json.dumps(configured, sort_keys=True, default=str)
    return {
        "configuration": sha256(text.encode()).hexdigest(),
        "requests": requests_fingerprint,
        "tetribench": tetribench.__version__,
        **commit(),
    }


def find_done(out: Path, wanted: Mapping[str, Any]) -> Path | None:
    """A complete run with this passport below `out`; the first by name.

    Uncommitted changes have no hash of their own: a run that was made with some is never taken for another.
    """
    if wanted.get("dirty", False):
        return None
    for path in sorted(out.glob("*/run.json")):
        status = path.with_name("status.json")
        try:
            is_complete = json.loads(status.read_text())["state"] == "complete"
            if is_complete and json.loads(path.read_text()).get("passport") == wanted:
                return path.parent
        except (OSError, ValueError, KeyError):  # being written, or something else altogether
            continue
    return None
