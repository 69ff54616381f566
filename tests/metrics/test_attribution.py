from collections.abc import Sequence
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.events import Event, EventKind
from tetribench.metrics.attribution import SHARES, attribute
from tetribench.metrics.timeline import iteration_table

DEVICES = pd.Series({"one": 1, "two": 2})
REQUESTS = pd.Index([1, 3, 4], dtype="int64")


def iteration(
    started_s: float, ended_s: float, chunks: dict[int, int], decodes: Sequence[int], source: str = "one"
) -> Event:
    """`chunks` has the number of prompt tokens by request."""
    details: dict[str, Any] = {
        "started_s": started_s,
        "num_prefill_tokens": sum(chunks.values()),
        "num_decode_tokens": len(decodes),
        "num_used_blocks": 0,
        "num_swapped_bytes": 0,
    }
    if chunks:
        details["chunks"] = [[0, num_tokens] for num_tokens in chunks.values()]
    return Event(ended_s, EventKind.ITERATION, source, (*chunks, *decodes), details)


def run(started_s: float, ends_s: list[float], decodes: Sequence[int], source: str = "one") -> Event:
    details = {
        "started_s": started_s,
        "ends_s": ends_s,
        "num_decode_tokens": len(decodes),
        "num_used_blocks": [0] * len(ends_s),
    }
    return Event(ends_s[-1], EventKind.ITERATIONS, source, tuple(decodes), details)


def paid(*events: Event) -> list[list[float]]:
    """Of requests 1, 3 and 4, each of `SHARES`."""
    shares = attribute(events, REQUESTS, DEVICES).shares
    assert list(shares.columns) == list(SHARES) and shares.index.equals(REQUESTS)
    rows: list[list[float]] = shares.to_numpy().tolist()
    return rows


def test_a_batch_is_shared_by_tokens() -> None:
    assert paid(iteration(0.0, 10.0, {1: 6, 3: 2}, [4, 1])) == [[6.0, 1.0, 7.0], [2.0, 0.0, 2.0], [0.0, 1.0, 1.0]]


def test_whoever_is_alone_pays_for_all_of_it_and_for_all_devices() -> None:
    assert paid(iteration(0.0, 5.0, {}, [3], "two")) == [[0.0, 0.0, 0.0], [0.0, 5.0, 10.0], [0.0, 0.0, 0.0]]


def test_iterations_add_up_over_the_log() -> None:
    events = iteration(0.0, 4.0, {1: 8}, []), iteration(4.0, 5.0, {4: 1}, [1]), iteration(5.0, 6.0, {}, [1, 4])
    assert paid(*events) == [[4.0, 1.0, 5.0], [0.0, 0.0, 0.0], [0.5, 0.5, 1.0]]
    with mock.patch("tetribench.metrics.attribution._SLICE", 2):
        assert paid(*events) == [[4.0, 1.0, 5.0], [0.0, 0.0, 0.0], [0.5, 0.5, 1.0]]


def test_a_run_of_iterations_is_shared_by_who_decodes_in_it() -> None:
    assert paid(run(1.0, [2.0, 4.0, 7.0], [1, 4])) == [[0.0, 3.0, 3.0], [0.0, 0.0, 0.0], [0.0, 3.0, 3.0]]


def test_what_only_swaps_is_charged_to_nobody() -> None:
    found = attribute([iteration(0.0, 3.0, {}, []), iteration(3.0, 4.0, {}, [1])], REQUESTS, DEVICES)
    assert found.unattributed_s == 3.0 and found.shares.to_numpy().sum() == 2.0


def test_nothing_ran() -> None:
    assert paid() == [[0.0] * 3] * 3


def test_a_batch_that_does_not_add_up_is_an_error() -> None:
    """A chunk that the counts do not know of gives its requests more or fewer shares than there are."""
    broken = iteration(0.0, 1.0, {1: 5}, [3])
    broken.details["chunks"] = [[0, 0]]
    broken.requests = (1,)
    with pytest.raises(AssertionError, match=r"requests pay 0\.0 s of 1\.0 s"):
        paid(broken)


batches = st.tuples(
    st.dictionaries(st.sampled_from([1, 3]), st.integers(1, 512), max_size=2),
    st.lists(st.sampled_from([4, 5, 6, 7]), unique=True, max_size=4),
    st.floats(0.0, 10.0),
    st.sampled_from(["one", "two"]),
)


@given(st.lists(batches, max_size=12))
def test_what_requests_pay_is_what_the_iterations_took(
    drawn: list[tuple[dict[int, int], list[int], float, str]],
) -> None:
    now_s, events = 0.0, []
    for chunks, decodes, seconds, source in drawn:
        if decodes and not chunks:
            events.append(run(now_s, [now_s + seconds / 2, now_s + seconds], decodes, source))
        else:
            events.append(iteration(now_s, now_s + seconds, chunks, decodes, source))
        now_s += seconds
    found = attribute(events, pd.Index([1, 3, 4, 5, 6, 7]), DEVICES)
    table = iteration_table(events)
    busy_s = table["ended_s"] - table["started_s"]
    totals = found.shares.sum()
    assert totals["prefill_busy_s"] + totals["decode_busy_s"] + found.unattributed_s == pytest.approx(busy_s.sum())
    is_paid = table["num_prefill_tokens"] + table["num_decode_tokens"] > 0
    device_s = busy_s * table["instance"].astype(object).map(DEVICES)
    assert totals["busy_device_s"] == pytest.approx(device_s[is_paid].sum())
    assert (found.shares >= 0).all().all()
