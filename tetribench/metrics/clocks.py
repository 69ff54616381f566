"""How far the clocks of two processes can be apart: as far as the messages that crossed both ways leave room.

All processes of a run read the machine's one monotonic clock. That is checked, not trusted: nothing can be received
before it was sent, so the quickest message each way bounds by how much one clock is ahead of the other.
"""

from typing import Any

import pandas as pd

CROSSINGS = (
    ("prefill_instance", "routed_s", "prefill_started_s", "prefill_done_s", "first_token_s"),
    ("decode_instance", "dispatched_s", "reserved_s", "reserved_s", "transfer_started_s"),
)
"""Of an instance: what was sent to it and received there, and what was sent by it and received elsewhere."""


def clock_bounds(requests: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By instance, the bounds (s) of how far its clock is ahead of the one that it exchanges messages with.

    That is the client's for an instance that prefills, and for one that decodes the prefill instances'. `ahead_s` and
    `behind_s` are the most that it can be; a negative one says that something came before it was sent, and None that
    no message tells. From requests that were not begun again, since of the others only first edges are known.
    """
    known = requests[requests["num_retries"] == 0]
    found: dict[str, dict[str, Any]] = {}
    for instance_column, *edges in CROSSINGS:
        sent, received, answered, returned = (known[edge] for edge in edges)
        ways = pd.DataFrame({"there_s": received - sent, "back_s": returned - answered})
        has_crossed = ways["there_s"].notna() | ways["back_s"].notna()
        for name, own in ways[has_crossed].groupby(known[instance_column]):
            quickest = own.min()
            bounds = {"ahead_s": _plain(quickest["there_s"]), "behind_s": _plain(quickest["back_s"])}
            found.setdefault(str(name), bounds)
    return found


def are_bounded(bounds: dict[str, dict[str, Any]]) -> bool:
    """Every clock is known to be close to another, and nothing came before it was sent."""
    return all(bound is not None and bound >= 0.0 for each in bounds.values() for bound in each.values())


def _plain(seconds: float) -> float | None:
    return None if pd.isna(seconds) else float(seconds)
