from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.events import CLIENT, Event, EventKind
from tetribench.metrics.claims import Kind
from tetribench.metrics.ledger import ACCOUNTS, COLUMNS, ledger_summary, ledger_table
from tetribench.metrics.timeline import instance_table, iteration_table, transfer_table

Make = Callable[..., Event]


def ledger(log: list[Event]) -> pd.DataFrame:
    iterations, transfers = iteration_table(log), transfer_table(log)
    return ledger_table(log, iterations, transfers, instance_table(log, iterations, transfers))


def accounts(log: list[Event], instance: str) -> dict[str, float]:
    """Those of one instance that are not empty, rounded."""
    row: dict[str, float] = ledger_summary(ledger(log), 0.0)["instances"][instance]
    return {name: round(row[name], 9) for name in COLUMNS if row[name] > 1e-9}


def life(event: Make, name: str = "one", **changes: Any) -> list[Event]:
    """Started at 0, ready at 1, stopped at 10; a request arrives at 2 and ends at 9."""
    times = {"started": 0.0, "ready": 1.0, "stopped": 10.0, "arrived": 2.0, "finished": 9.0} | changes
    made: dict[str, tuple[str, str, tuple[int, ...], dict[str, Any]]] = {
        "started": ("instance_started", name, (), {"role": "decode"}),
        "ready": ("instance_ready", name, (), {"role": "decode"}),
        "stopped": ("instance_stopped", name, (), {}),
        "arrived": ("arrived", CLIENT, (0,), {"num_prompt_tokens": 1, "max_output_tokens": 1}),
        "finished": ("finished", CLIENT, (0,), {"num_output_tokens": 1}),
    }
    return [
        event(times[key], kind, source, *ids, **more)
        for key, (kind, source, ids, more) in made.items()
        if times[key] is not None
    ]


def ran(event: Make, started_s: float, ended_s: float, num_prefill: int = 0, num_decode: int = 1) -> Event:
    counts = {"num_prefill_tokens": num_prefill, "num_decode_tokens": num_decode, "num_used_blocks": 0}
    return event(ended_s, "iteration", "one", started_s=started_s, num_swapped_bytes=0, **counts)


def test_a_disaggregated_life(disaggregated: list[Event]) -> None:
    assert accounts(disaggregated, "p0") == {
        "prefill_s": 1.3,
        "predictor_s": 0.05,  # the first prediction ran beside an iteration, the second 0.05 s of 0.1 s
        "transfer_s": 0.03,  # 1.42 to 1.48 but for what the predictor has; the first one was hidden
        "start_up_s": 1.0,
        "shut_down_s": 1.0,
        "work_s": 2.62,
    }
    assert accounts(disaggregated, "d0") == {
        "decode_s": 0.4,
        "transfer_s": 0.1,
        "start_up_s": 1.0,
        "shut_down_s": 1.0,
        "work_s": 3.5,
    }


def test_a_life_that_the_log_does_not_end(colocated: list[Event]) -> None:
    """A request is unfinished, so nothing is shut down; the last event is at 5.0."""
    row = ledger(colocated).loc["c0"]
    assert (row["role"], row["num_devices"], row["provisioned_s"]) == ("colocated", 1, 7.0)
    assert row["prefill_s"] == pytest.approx(0.5 + 102 / 103) and row["decode_s"] == pytest.approx(0.5 + 1 / 103)
    assert row["work_s"] == pytest.approx(4.0) and row["shut_down_s"] == 0.0


def test_an_idle_instance_waits_for_memory_or_for_work(event: Make) -> None:
    log = [*life(event), ran(event, 2.0, 4.0), event(6.5, "memory_wait", "one", started_s=3.5)]
    expected = {"decode_s": 2.0, "memory_s": 2.5, "start_up_s": 1.0, "shut_down_s": 1.0, "work_s": 3.5}
    assert accounts(log, "one") == expected


def test_an_iteration_without_tokens_copies_for_decode(event: Make) -> None:
    assert accounts([*life(event), ran(event, 2.0, 4.0, 0, 0)], "one")["decode_s"] == 2.0


def test_a_flip_takes_what_else_would_be_waiting(event: Make) -> None:
    log = [
        *life(event),
        event(4.0, "flip_started", "one", role="decode", to="prefill"),
        ran(event, 3.0, 5.0),
        event(5.8, "memory_wait", "one", started_s=5.0),
        event(6.0, "flipped", "one", role="decode", to="prefill"),
        event(7.0, "flip_started", "one", role="prefill", to="decode"),
    ]
    expected = {"decode_s": 2.0, "flip_s": 1.0 + 2.0, "start_up_s": 1.0, "shut_down_s": 1.0, "work_s": 3.0}
    assert accounts(log, "one") == expected, "a flip that was never done lasts until the end"


def test_who_leaves_shuts_down_from_the_decision_on(event: Make) -> None:
    log = [
        *life(event, finished=None),
        event(4.0, "flip_started", "one", role="decode", to=None),
        ran(event, 3.0, 5.0),
        event(6.0, "flipped", "one", role="decode", to=None),
    ]
    assert accounts(log, "one") == {"decode_s": 2.0, "shut_down_s": 5.0, "start_up_s": 1.0, "work_s": 2.0}


def test_what_an_instance_did_before_it_died_is_lost(event: Make) -> None:
    died = event(7.0, "instance_lost", "one", reason="killed", num_restarted=2)
    log = [*life(event, stopped=7.0), ran(event, 3.0, 5.0), died]
    assert accounts(log, "one") == {"decode_s": 2.0, "lost_s": 2.0, "start_up_s": 1.0, "work_s": 2.0}
    log = [*life(event, stopped=7.0), died]
    assert accounts(log, "one") == {"lost_s": 6.0, "start_up_s": 1.0}, "it may have been at work since it was ready"


def test_who_died_with_nothing_had_no_work(event: Make) -> None:
    died = event(7.0, "instance_lost", "one", reason="killed", num_restarted=0)
    log = [*life(event, stopped=7.0), ran(event, 3.0, 5.0), died]
    assert accounts(log, "one") == {"decode_s": 2.0, "start_up_s": 1.0, "work_s": 4.0}


def test_who_never_gets_ready_starts_up_all_its_life(event: Make) -> None:
    assert accounts(life(event, ready=None), "one") == {"start_up_s": 10.0}


def test_nothing_is_left_once_the_last_request_has_failed(event: Make) -> None:
    log = [*life(event, finished=None), event(5.0, "failed", CLIENT, 0, reason="refused")]
    assert accounts(log, "one") == {"start_up_s": 1.0, "shut_down_s": 5.0, "work_s": 4.0}


def test_iterations_that_overlap_do_not_balance(event: Make) -> None:
    with pytest.raises(AssertionError, match="the ledger of one does not balance with its iterations"):
        ledger([*life(event), ran(event, 2.0, 4.0), ran(event, 3.0, 5.0)])


def test_work_outside_of_an_instances_life_does_not_balance(event: Make) -> None:
    with pytest.raises(AssertionError, match="the ledger of one does not balance with its iterations"):
        ledger([*life(event), ran(event, 9.5, 10.5)])


def test_a_log_without_instances_has_an_empty_ledger() -> None:
    table = ledger([])
    assert len(table) == 0 and list(table.columns) == ["role", "num_devices", "provisioned_s", *COLUMNS]


def test_the_summary_is_plain(disaggregated: list[Event]) -> None:
    summary = ledger_summary(ledger(disaggregated), 0.5)
    assert list(summary["instances"]) == ["d0", "p0"] and summary["unattributed_s"] == 0.5
    assert {type(value) for value in summary["instances"]["p0"].values()} == {str, float}
    total = summary["total"]
    assert total["provisioned_s"] == 12.0 == pytest.approx(sum(total[column] for column in COLUMNS))


def test_every_kind_of_claim_has_an_account() -> None:
    names = [account.name for account in ACCOUNTS]
    assert names == ["prefill", "decode", *[kind.value for kind in Kind if kind is not Kind.COMPUTE], "work"]


# --- against counting tick by tick ------------------------------------------------------------------------------------

NUM_TICKS = 24


@dataclass
class Claimed:
    """What a log says of one instance, in whole seconds."""

    log: list[Event]
    claims: list[tuple[Kind, float, float]]
    started: int
    stopped: int

    def owner(self, tick: int) -> str:
        """By the middle of the tick."""
        held = [kind for kind, from_s, to_s in self.claims if from_s <= tick + 0.5 <= to_s]
        return min(held, key=list(Kind).index).value if held else "work"


@st.composite
def logs(draw: st.DrawFn) -> Claimed:
    """One instance, with spans of every kind wherever they like, but iterations one after the other."""

    def span(low: int = 0, high: int = NUM_TICKS) -> tuple[int, int]:
        first, second = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        return first, second

    def make(time_s: float, kind: EventKind, **details: Any) -> Event:
        return Event(time_s, kind, "one", (), details)

    started, stopped = span()
    ready = draw(st.integers(started, stopped))
    log = [
        make(started, EventKind.INSTANCE_STARTED, role="decode"),
        make(ready, EventKind.INSTANCE_READY, role="decode"),
    ]
    log.append(make(stopped, EventKind.INSTANCE_STOPPED))
    claims: list[tuple[Kind, float, float]] = [(Kind.START_UP, started, ready)]
    edges = sorted(draw(st.lists(st.integers(started, stopped), max_size=8)))
    for from_s, to_s in zip(edges[::2], edges[1::2], strict=False):
        counts = {"num_prefill_tokens": draw(st.integers(0, 3)), "num_decode_tokens": draw(st.integers(0, 3))}
        log.append(make(to_s, EventKind.ITERATION, started_s=from_s, num_used_blocks=0, num_swapped_bytes=0, **counts))
        claims.append((Kind.COMPUTE, from_s, to_s))
    for kind in draw(st.lists(st.sampled_from([Kind.PREDICTOR, Kind.TRANSFER, Kind.MEMORY, Kind.FLIP]), max_size=8)):
        from_s, to_s = span()
        claims.append((kind, from_s, to_s))
        match kind:
            case Kind.PREDICTOR:
                log.append(Event(to_s, EventKind.PREDICTED, "one", (0,), {"duration_s": to_s - from_s}))
            case Kind.TRANSFER:
                ends = draw(st.sampled_from([("one", "two"), ("two", "one")]))
                details = {"started_s": from_s, "num_bytes": 1, "to": ends[1]}
                log.append(Event(to_s, EventKind.TRANSFER, ends[0], (0,), details))
            case Kind.MEMORY:
                log.append(make(to_s, EventKind.MEMORY_WAIT, started_s=from_s))
            case _:
                log.append(make(from_s, EventKind.FLIP_STARTED, to=None))
                claims[-1] = (Kind.SHUT_DOWN, from_s, inf)
    ended = draw(st.none() | st.integers(0, NUM_TICKS))
    if ended is not None:
        log.append(Event(0.0, EventKind.ARRIVED, CLIENT, (0,), {"num_prompt_tokens": 1, "max_output_tokens": 1}))
        log.append(Event(ended, EventKind.FINISHED, CLIENT, (0,), {"num_output_tokens": 1}))
        claims.append((Kind.SHUT_DOWN, ended, inf))
    return Claimed(draw(st.permutations(log)), claims, started, stopped)


@given(logs())
def test_every_second_goes_to_the_first_that_claims_it(claimed: Claimed) -> None:
    row = ledger(claimed.log).loc["one"]
    owners = [claimed.owner(tick) for tick in range(claimed.started, claimed.stopped)]
    assert row["provisioned_s"] == len(owners)
    assert row["prefill_s"] + row["decode_s"] == pytest.approx(owners.count("compute"))
    for account in ACCOUNTS[2:]:
        assert row[account.column] == pytest.approx(owners.count(account.name)), account.name
