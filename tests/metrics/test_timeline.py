import random
from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.core.events import Event, EventKind
from tetribench.metrics.timeline import (
    EDGES,
    Accounting,
    account,
    instance_table,
    iteration_table,
    request_table,
    token_times,
    transfer_table,
)

Make = Callable[..., Event]


def instances(events: list[Event]) -> pd.DataFrame:
    return instance_table(events, iteration_table(events), transfer_table(events))


def test_a_disaggregated_life(disaggregated: list[Event]) -> None:
    table = request_table(disaggregated)
    assert table.index.name == "request"
    expected = {
        "label": "LPLD",
        "sla_class": "default",
        "num_prompt_tokens": 100,
        "max_output_tokens": 50,
        "arrived_s": 1.0,
        "sent_s": 1.01,
        "routed_s": 1.03,
        "predicted_s": 1.20,
        "prefill_started_s": 1.10,
        "prefill_done_s": 1.40,
        "dispatched_s": 1.30,
        "reserved_s": 1.35,
        "transfer_started_s": 1.36,
        "transfer_done_s": 1.48,
        "admitted_s": 1.60,
        "first_token_s": 1.45,
        "finished_s": 2.00,
        "failed_s": None,
        "predicted_low": 0.0,
        "predicted_high": 200.0,
        "predicting_s": 0.1,
        "reason": None,
        "num_output_tokens": 4,
        "num_preemptions": 0,
        "num_swaps": 0,
        "num_recomputed_tokens": 0,
        "num_retries": 0,
        "num_transfer_bytes": 1000,
        "transfer_busy_s": 0.10,
        "prefill_instance": "p0",
        "decode_instance": "d0",
    }
    assert list(table.columns) == list(expected)
    assert table["failed_s"].isna().all()
    del expected["failed_s"]
    assert table.drop(columns="failed_s").loc[1].to_dict() == expected


def test_the_sla_class_is_the_default_where_the_arrival_does_not_say(event: Make) -> None:
    lengths = {"num_prompt_tokens": 1, "max_output_tokens": 1}
    log = [event(0.0, "arrived", "client", 0, **lengths), event(0.0, "arrived", "client", 1, sla_class="b", **lengths)]
    assert request_table(log)["sla_class"].to_list() == ["default", "b"]


def test_a_life_of_one_token_is_not_handed_over(disaggregated: list[Event]) -> None:
    life = request_table(disaggregated).loc[2]
    assert life["num_output_tokens"] == 1 and life["num_transfer_bytes"] == 0
    assert life["prefill_instance"] == "p0" and life["decode_instance"] is None
    assert life[["dispatched_s", "reserved_s", "transfer_done_s", "transfer_busy_s", "admitted_s"]].isna().all()


def test_a_colocated_life_counts_from_its_first_admission(colocated: list[Event]) -> None:
    life = request_table(colocated).loc[1]
    assert (life["admitted_s"], life["prefill_started_s"], life["prefill_done_s"]) == (0.5, 0.5, 1.0)
    assert (life["num_preemptions"], life["num_swaps"], life["num_recomputed_tokens"]) == (1, 0, 102)
    assert life["prefill_instance"] == life["decode_instance"] == "c0"


def test_failed_and_unfinished_requests_stay(colocated: list[Event]) -> None:
    table = request_table(colocated)
    assert list(table.index) == [1, 2, 3]
    assert table["reason"].to_list() == [None, "too long", None]
    assert table["num_output_tokens"].to_list() == [3, 0, 2], "tokens that came, where nothing says how many it took"
    assert table["prefill_instance"].to_list() == ["c0", None, None]
    assert account(table) == Accounting(submitted=3, finished=1, failed=1, unfinished=1)


def test_a_failure_after_the_end_is_a_failure(colocated: list[Event], event: Make) -> None:
    table = request_table([*colocated, event(6.0, "failed", "client", 1, reason="wrong length")])
    assert account(table) == Accounting(submitted=3, finished=0, failed=2, unfinished=1)


def test_accounting_must_add_up() -> None:
    with pytest.raises(AssertionError):
        Accounting(submitted=3, finished=1, failed=0, unfinished=1)


def test_an_event_of_an_unknown_request_is_an_error(colocated: list[Event], event: Make) -> None:
    with pytest.raises(ValueError, match="has routed for request 9, which never arrived"):
        request_table([*colocated, event(6.0, "routed", "global_scheduler", 9, to="c0")])


def test_tokens_by_request(colocated: list[Event]) -> None:
    times = token_times(colocated)
    assert {id: each.tolist() for id, each in times.items()} == {1: [1.0, 1.5, 3.0], 3: [2.9, 3.0]}


def test_token_times_are_a_mapping(colocated: list[Event]) -> None:
    times = token_times(colocated)
    assert len(times) == 2 and 2 not in times and 9 not in times and times.get(9) is None
    assert times.sizes.tolist() == [3, 2]
    assert times.first_s.tolist() == [1.0, 2.9] and times.last_s.tolist() == [3.0, 3.0]


def test_token_times_ascend_even_where_deliveries_do_not(event: Make) -> None:
    log = [event(2.0, "first_token", "client", 1), event(1.0, "token", "client", 1, 1)]
    assert token_times(log)[1].tolist() == [1.0, 1.0, 2.0]
    late = event(2.0, "token", "client", 1, 2)
    runs = [event(3.0, "tokens", "client", id, times_s=[1.0, 3.0]) for id in (1, 2, 3)]
    times = token_times([late, *runs])
    assert {id: each.tolist() for id, each in times.items()} == {1: [1, 2, 3], 2: [1, 2, 3], 3: [1, 3]}


def test_instances(disaggregated: list[Event]) -> None:
    table = instances(disaggregated)
    assert list(table.index) == ["d0", "p0"] and table.index.name == "instance"
    prefill = table.loc["p0"]
    assert (prefill["role"], prefill["device"], prefill["dtype"]) == ("prefill", "cpu", "float32")
    assert (prefill["started_s"], prefill["ready_s"], prefill["stopped_s"]) == (-2.0, -1.0, 4.0)
    assert (prefill["first_work_s"], prefill["last_work_s"]) == (1.10, 2.50)
    assert prefill["busy_prefill_s"] == pytest.approx(0.2 + 0.1 + 1.0)
    assert (prefill["busy_decode_s"], prefill["busy_mixed_s"], prefill["num_iterations"]) == (0.0, 0.0, 3)
    assert prefill["transfer_s"] == pytest.approx(0.04 + 0.06)
    assert (prefill["num_blocks"], prefill["block_size"], prefill["kv_capacity_tokens"]) == (100, 16, 1600)
    decode = table.loc["d0"]
    assert decode["busy_decode_s"] == pytest.approx(0.4) and decode["transfer_s"] == 0.0


def test_mixed_iterations_are_told_apart(colocated: list[Event]) -> None:
    table = instances(colocated)
    instance = table.loc["c0"]
    assert (instance["busy_prefill_s"], instance["busy_decode_s"], instance["busy_mixed_s"]) == (0.5, 0.5, 1.0)
    assert table["stopped_s"].isna().all()


def test_a_transfer_may_be_the_last_work(event: Make) -> None:
    transfer = event(3.0, "transfer", "p0", 1, started_s=2.0, num_bytes=10, to="d0")
    table = instances([event(0.0, "instance_started", "d0", role="decode"), transfer])
    assert (table.loc["p0", "first_work_s"], table.loc["p0", "last_work_s"]) == (2.0, 3.0)
    assert table["last_work_s"].isna()["d0"], "receiving is not work"


def test_an_instance_that_never_got_ready_has_no_facts(event: Make) -> None:
    instance = instances([event(0.0, "instance_started", "p0", role="prefill")]).loc["p0"]
    assert instance["role"] == "prefill" and instance["device"] is None and instance["num_iterations"] == 0
    assert instance[["ready_s", "num_blocks", "kv_capacity_tokens", "first_work_s"]].isna().all()


def test_devices_of_an_instance_are_read_where_they_are_said(event: Make) -> None:
    ready = event(0.0, "instance_ready", "p0", role="prefill", num_devices=2)
    assert instances([ready])[["role", "num_devices"]].to_numpy().tolist() == [["prefill", 2]]
    half = event(0.0, "instance_ready", "p0", role="prefill", num_devices=1, num_sharing=2)
    assert instances([half])["num_devices"].tolist() == [0.5]


def test_iterations(colocated: list[Event]) -> None:
    table = iteration_table(colocated)
    counts = ["num_prefill_tokens", "num_decode_tokens", "num_used_blocks", "num_swapped_bytes"]
    assert list(table.columns) == ["instance", "started_s", "ended_s", *counts]
    assert table.to_numpy().tolist() == [
        ["c0", 0.5, 1.0, 100, 0, 50, 0],
        ["c0", 1.0, 1.5, 0, 1, 100, 0],
        ["c0", 2.0, 3.0, 102, 1, 75, 0],
    ]


def test_transfers(disaggregated: list[Event]) -> None:
    table = transfer_table(disaggregated)
    assert list(table.columns) == ["request", "source", "target", "started_s", "ended_s", "num_bytes"]
    assert table.to_numpy().tolist() == [[1, "p0", "d0", 1.36, 1.40, 400], [1, "p0", "d0", 1.42, 1.48, 600]]


@pytest.mark.parametrize("make", [request_table, instances, iteration_table, transfer_table])
def test_a_log_without_events_gives_tables_without_rows(
    make: Callable[[list[Event]], pd.DataFrame], disaggregated: list[Event]
) -> None:
    table, full = make([]), make(disaggregated)
    assert len(table) == 0
    assert table.dtypes.map(str).to_dict() == full.dtypes.map(str).to_dict()


def test_no_events_no_tokens() -> None:
    assert token_times([]) == {}
    assert account(request_table([])) == Accounting(0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_log_does_not_matter(disaggregated: list[Event], colocated: list[Event], seed: int) -> None:
    for log in (disaggregated, colocated):
        mixed = random.Random(seed).sample(log, len(log))
        for make in (request_table, instances, iteration_table, transfer_table):
            pd.testing.assert_frame_equal(make(mixed), make(log))
        assert {id: each.tolist() for id, each in token_times(mixed).items()} == {
            id: each.tolist() for id, each in token_times(log).items()
        }


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(list(EDGES.values())), st.floats(0.0, 10.0)),
        max_size=30,
    )
)
def test_no_request_is_lost_whatever_happens_to_it(happenings: list[tuple[int, EventKind, float]]) -> None:
    details = {"num_prompt_tokens": 1, "max_output_tokens": 1, "num_output_tokens": 1, "num_bytes": 1, "busy_s": 0.0}
    details |= {"low": 0, "high": 200}
    log = [Event(0.0, EventKind.ARRIVED, "client", (id,), details) for id in range(6)]
    log += [Event(time_s, kind, "somewhere", (id,), details) for id, kind, time_s in happenings]
    accounting = account(request_table(log))
    assert accounting.submitted == 6
    assert accounting.finished + accounting.failed + accounting.unfinished == 6
    assert accounting.failed == len({id for id, kind, _ in happenings if kind is EventKind.FAILED})


def test_a_run_of_iterations_is_its_iterations_and_a_run_of_tokens_its_tokens(event: Make) -> None:
    run = event(3.0, "iterations", "d0", started_s=1.0, ends_s=[2.0, 3.0], num_used_blocks=[5, 6], num_decode_tokens=2)
    single = event(2.0, "iteration", "c0", started_s=1.5, num_prefill_tokens=7, num_decode_tokens=0)
    single.details |= {"num_used_blocks": 1, "num_swapped_bytes": 0}
    assert iteration_table([run, single]).to_numpy().tolist() == [
        ["c0", 1.5, 2.0, 7, 0, 1, 0],
        ["d0", 1.0, 2.0, 0, 2, 5, 0],
        ["d0", 2.0, 3.0, 0, 2, 6, 0],
    ]
    tokens = event(3.0, "tokens", "client", 1, 2, times_s=[2.0, 3.0])
    first = event(1.0, "first_token", "client", 2)
    assert {id: each.tolist() for id, each in token_times([tokens, first]).items()} == {1: [2, 3], 2: [1, 2, 3]}
