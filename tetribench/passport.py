"""What makes two runs the same run: the hash of everything that was configured, the requests, and the code."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from tetribench.provenance import commit

WITHOUT_EFFECT = ("out", "name", "progress", "track", "task", "axes", "resume")
"""Options that say where a run goes and who is told of it."""


def passport(options: Mapping[str, Any], requests_fingerprint: str) -> dict[str, Any]:
    """`options` is the whole configuration, resolved, as plain values. Runs of equal passports are repeats of each other.

    Uncommitted changes have no hash: a run with some is never equal to another.
    """
    configured = {name: value for name, value in options.items() if name not in WITHOUT_EFFECT}
    text = json.dumps(configured, sort_keys=True, default=str)
    return {"configuration": sha256(text.encode()).hexdigest(), "requests": requests_fingerprint, **commit()}


def is_repeat(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are passports of the same run."""
    return one == other and not one.get("dirty", False)
