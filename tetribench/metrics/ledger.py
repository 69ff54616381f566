"""The resource-time ledger: into which account every second of every provisioned instance goes, each into one.

An instance is provisioned from INSTANCE_STARTED to INSTANCE_STOPPED. Where several claim a moment, the first in the
order of `claims.Kind` has it: a prediction or a transfer counts only where it overlaps no iteration, a wait only where
nothing happens at all. An iteration goes to prefill and to decode by their tokens in its batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tetribench.core.events import Event
from tetribench.metrics.claims import Kind, claims, lives
from tetribench.metrics.columns import EventsByKind

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Account:
    """Of the ledger; `column` is in seconds."""

    name: str
    title: str
    meaning: str

    @property
    def column(self) -> str:
        return f"{self.name}_s"


ACCOUNTS = (
    Account("prefill", "Prefill", "iterations, by the share of prompt tokens in their batch"),
    Account("decode", "Decode", "iterations, by the share of decoded tokens in their batch; swapping KV alone"),
    Account("predictor", "Predictor", "a length prediction runs, and no iteration"),
    Account("transfer", "KV transfer", "KV is on its way from or to the instance, which else does nothing"),
    Account("start_up", "Start-up", "instance_started to instance_ready"),
    Account("shut_down", "Shut-down", "idle since the last request of all has ended, or since it was told to leave"),
    Account("flip", "Flip", "idle between the decision to flip it and the control plane knowing of its new role"),
    Account("lost", "Lost", "of an instance that died with requests: since the last thing that it could record"),
    Account("memory", "Waiting for KV memory", "idle, and somebody who is there waits for KV blocks"),
    Account("untold", "Not told", "of an opaque instance, such as a server of others, between start-up and shut-down"),
    Account("work", "Waiting for work", "idle, and nothing is there to do"),
)
"""Each second of an instance is in one of them; `<name>_s` in tables."""

COLUMNS = [account.column for account in ACCOUNTS]

_LEVEL = {kind: level for level, kind in enumerate(Kind)}
_WORK = len(Kind)
"""Behind all that is claimed."""


def ledger_table(
    events: Iterable[Event], iterations: pd.DataFrame, transfers: pd.DataFrame, instances: pd.DataFrame
) -> pd.DataFrame:
    """One row for each instance, by name: `role`, `num_devices`, `provisioned_s`, and the seconds of each account.

    Asserts that these sum to what was provisioned, and that prefill and decode are all of the instance's iterations.
    """
    by_kind = EventsByKind.of(events)
    life = lives(by_kind, instances)
    split = _split_all(life, claims(by_kind, iterations, transfers, instances))
    computed = _computed(iterations).reindex(instances.index, fill_value=0.0)
    table = instances[["role", "num_devices"]].assign(provisioned_s=life["stopped_s"] - life["started_s"])
    table = table.join(computed).join(split.drop(columns=Kind.COMPUTE.value).add_suffix("_s"))
    _assert_equal(computed.sum(axis="columns"), split[Kind.COMPUTE.value], "its iterations")
    _assert_equal(table[COLUMNS].sum(axis="columns", skipna=False), table["provisioned_s"], "what was provisioned")
    return table


def ledger_summary(table: pd.DataFrame, unattributed_s: float) -> dict[str, Any]:
    """Plain values: the table by instance, its sums, and the computed seconds that no request is charged with."""
    total = {str(name): float(seconds) for name, seconds in table[["provisioned_s", *COLUMNS]].sum().items()}
    return {"instances": table.to_dict("index"), "total": total, "unattributed_s": unattributed_s}


def _assert_equal(found_s: "pd.Series[float]", expected_s: "pd.Series[float]", what: str) -> None:
    """But for the rounding of long sums."""
    is_off = ~((found_s - expected_s).abs() <= 1e-9 * (1.0 + expected_s.abs()))  # nor is what is undefined equal
    assert not is_off.any(), f"the ledger of {', '.join(found_s.index[is_off])} does not balance with {what}"


def _computed(iterations: pd.DataFrame) -> pd.DataFrame:
    """By instance, the seconds of its iterations, split by their tokens."""
    num_prefill, num_decode = iterations["num_prefill_tokens"], iterations["num_decode_tokens"]
    duration_s = iterations["ended_s"] - iterations["started_s"]
    prefill_s = duration_s * (num_prefill / (num_prefill + num_decode).clip(lower=1))  # a share of 1 leaves no rest
    return (
        pd.DataFrame({"prefill_s": prefill_s, "decode_s": duration_s - prefill_s}).groupby(iterations["instance"]).sum()
    )


def _split_all(life: pd.DataFrame, claimed: pd.DataFrame) -> pd.DataFrame:
    """By instance, the seconds of each kind of claim, and of `work`, which nobody claims."""
    owner = life.index.get_indexer(pd.Index(claimed["instance"]))
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(life) + 1))
    level = claimed["kind"].map(_LEVEL).to_numpy(np.int64)
    started_s, ended_s = claimed["started_s"].to_numpy(np.float64), claimed["ended_s"].to_numpy(np.float64)
    rows = []
    for number, (from_s, to_s) in enumerate(life[["started_s", "stopped_s"]].to_numpy()):
        own = order[bounds[number] : bounds[number + 1]]
        rows.append(_split(from_s, to_s, level[own], started_s[own], ended_s[own]))
    columns = [*(kind.value for kind in Kind), "work"]
    return pd.DataFrame(np.array(rows).reshape(len(life), len(columns)), life.index, columns)


def _split(from_s: float, to_s: float, level: npt.NDArray[Any], started_s: Floats, ended_s: Floats) -> Floats:
    """Seconds between `from_s` and `to_s` at each level, where the lowest of those that claim a moment has it."""
    started_s, ended_s = np.clip(started_s, from_s, to_s), np.clip(ended_s, from_s, to_s)
    edges_s = np.concatenate([[from_s, to_s], started_s, ended_s])
    order = np.argsort(edges_s, kind="stable")
    has = np.full(len(edges_s) - 1, _WORK)
    for each in np.unique(level)[::-1]:
        opens = (level == each).astype(np.int64)
        num_open = np.cumsum(np.concatenate([[0, 0], opens, -opens])[order])[:-1]
        has[num_open > 0] = each
    return np.bincount(has, weights=np.diff(edges_s[order]), minlength=_WORK + 1).astype(np.float64)
