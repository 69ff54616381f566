"""Each reason for which a run is INVALID, one at a time, from a run that is valid."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, vllm_like
from tests.support.engine import CheckingFactory
from tetribench.core.events import Event, EventKind
from tetribench.core.request import Request
from tetribench.metrics.audit import Asked
from tetribench.metrics.client_error import ClientError, StatisticError
from tetribench.metrics.compare import Beside, SystemResult, measure
from tetribench.metrics.limits import Limits
from tetribench.metrics.paired import Served, compare
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo
from tetribench.metrics.validity import REAL_TIME_ONLY, Code, Validity, judge

REQUESTS = [request(id, 30, 10, 0.02 * id) for id in range(25)]
QUIET = {"num_cores": 2, "other_cores": 0.05}


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return Bench(vllm_like(), CheckingFactory()).run(REQUESTS).log.events


def measured(
    events: list[Event],
    system: str = "a",
    requests: list[Request] = REQUESTS,
    machine: dict[str, Any] = QUIET,
    slowdown: float = 1.0,
) -> SystemResult:
    """`slowdown` stretches everything but the arrivals."""
    slowed = [
        event if event.kind in (EventKind.ARRIVED, EventKind.SENT) else stretched(event, slowdown) for event in events
    ]
    return measure(system, slowed, Slo(), beside=Beside(asked=Asked(requests=requests), machine=machine))


def stretched(event: Event, slowdown: float) -> Event:
    details = {name: slowdown * value if name == "started_s" else value for name, value in event.details.items()}
    return replace(event, time_s=slowdown * event.time_s, details=details)


def moved(event: Event, by_s: float) -> Event:
    details = {name: value + by_s if name == "started_s" else value for name, value in event.details.items()}
    return replace(event, time_s=event.time_s + by_s, details=details)


def client(ttft_s: float = 0.0, itl_s: float = 0.0, p99_s: float | None = None) -> ClientError:
    return ClientError(
        ttft=StatisticError(mean_s=ttft_s, p99_s=p99_s, num_samples=25),
        itl=StatisticError(mean_s=itl_s, p99_s=None, num_samples=99),
        num_requests=25,
        num_streams=5,
        tokens_per_s=100.0,
        asked_per_s=1.0,
        delivered_per_s=1.0,
        mean_send_delay_s=0.0,
        max_send_delay_s=0.0,
    )


def judged(
    *results: SystemResult,
    error: ClientError | None = None,
    metric: str = "mean_jct_s",
    is_virtual: bool = False,
    **limits: Any,
) -> Validity:
    served = [Served(0, slot, result) for slot, result in enumerate(results)]
    rule, baseline = Rule(metric=metric), results[-1].system
    return judge(
        served,
        compare(served, baseline, rule, 0),
        error,
        baseline=baseline,
        rule=rule,
        limits=Limits(**limits),
        is_virtual=is_virtual,
    )


def the_reason(validity: Validity, code: Code) -> str:
    """Its text; there is no other code."""
    assert not validity.is_valid and validity.codes == [code]
    return validity.reasons[0].text


def sent_late(events: list[Event], num_late: int, late_s: float) -> list[Event]:
    late = set(range(num_late))
    return [
        replace(event, time_s=event.time_s + late_s)
        if event.kind is EventKind.SENT and event.requests[0] in late
        else event
        for event in events
    ]


def test_a_run_that_went_well_is_valid(events: list[Event]) -> None:
    found = judged(measured(events), error=client())
    assert found.is_valid and found.codes == [] and found.unchecked == {}


def test_late_sends(events: list[Event]) -> None:
    result = measured(sent_late(events, 3, 0.03))
    text = the_reason(judged(result, late_share=0.1, late_s=0.02), Code.LATE_SENDS)
    assert text.startswith("3 of 25 requests were sent more than 20 ms late, up to 30 ms")
    assert judged(result, late_share=0.12, late_s=0.02).is_valid
    assert judged(result, late_s=0.031).is_valid
    unlimited = judged(result, late_share=None)
    assert unlimited.is_valid and "late_share=null" in unlimited.unchecked[Code.LATE_SENDS]


def test_failures_count_those_that_never_ended_or_were_never_sent(events: list[Event]) -> None:
    never_sent = [*REQUESTS, request(25, 30, 10, 9.0)]
    text = the_reason(judged(measured(events, requests=never_sent)), Code.FAILURES)
    assert text.startswith("1 of 26 requests did not end well, and 1.0% may")
    unfinished = [event for event in events if event.kind is not EventKind.FINISHED or event.requests != (7,)]
    assert the_reason(judged(measured(unfinished)), Code.FAILURES).startswith("1 of 25")
    assert judged(measured(unfinished), failed_share=0.04).is_valid
    failed = [*events, Event(99.0, EventKind.FAILED, "client", (3,), {"reason": "x"})]
    assert the_reason(judged(measured(failed)), Code.FAILURES).startswith("1 of 25")


def test_wrong_lengths(events: list[Event]) -> None:
    longer = [replace(one, num_prompt_tokens=31) if one.id == 4 else one for one in REQUESTS]
    assert "such as request 4: prompt of 31 tokens, 30 computed" in the_reason(
        judged(measured(events, requests=longer)), Code.WRONG_LENGTHS
    )


def test_tokens_that_nobody_computed_are_wrong_lengths(events: list[Event]) -> None:
    made_up = [
        replace(event, details=event.details | {"num_decode_tokens": 0})
        if event.kind is EventKind.ITERATION and event.details["num_decode_tokens"] == 1
        else event
        for event in events
    ]
    assert "250 delivered" in the_reason(judged(measured(made_up)), Code.WRONG_LENGTHS)


def test_a_ttft_of_nothing(events: list[Event]) -> None:
    first_ttft_s = measured(events).requests["ttft_s"].min()
    assert "TTFTs are not above" in the_reason(judged(measured(events), min_ttft_s=first_ttft_s), Code.TTFT_BELOW_FLOOR)
    arrived_s = {event.requests[0]: event.time_s for event in events if event.kind is EventKind.ARRIVED}
    at_once = [
        replace(event, time_s=arrived_s[event.requests[0]]) if event.kind is EventKind.FIRST_TOKEN else event
        for event in events
    ]
    assert "25 TTFTs are not above 0 s" in the_reason(judged(measured(at_once), is_virtual=True), Code.TTFT_BELOW_FLOOR)


def test_clocks_that_are_apart(events: list[Event]) -> None:
    behind = [moved(event, -0.5) if event.source == "colocated-0" else event for event in events]
    text = the_reason(judged(measured(behind)), Code.CLOCKS_UNBOUNDED)
    assert text.startswith("colocated-0: its clock may be ahead by -0.")


def test_clocks_of_which_nothing_is_known(events: list[Event]) -> None:
    silent = [event for event in events if event.kind is not EventKind.PREFILL_DONE]
    assert "behind by unknown" in the_reason(judged(measured(silent)), Code.CLOCKS_UNBOUNDED)


def test_a_disturbed_machine(events: list[Event]) -> None:
    result = measured(events, machine={"num_cores": 2, "other_cores": 0.5})
    assert the_reason(judged(result), Code.MACHINE_DISTURBED).startswith("other programs took 0.50 of 2 cores")
    assert judged(result, other_share=0.25).is_valid
    unlimited = judged(result, other_share=None)
    assert unlimited.is_valid and Code.MACHINE_DISTURBED in unlimited.unchecked


def test_a_machine_of_which_nothing_is_known(events: list[Event]) -> None:
    found = judged(measured(events, machine={"num_cores": 2, "other_cores": None}))
    assert found.is_valid and "/proc/stat" in found.unchecked[Code.MACHINE_DISTURBED]


def test_too_few_samples_matter_to_the_verdicts_metric_only(events: list[Event]) -> None:
    few = measured([event for event in events if not event.requests or event.requests[0] < 15], requests=REQUESTS[:15])
    assert few.summary["metrics"]["overall"]["jct_s"]["p95"] is None
    assert Code.TOO_FEW_SAMPLES not in judged(few, metric="mean_jct_s").codes
    found = judged(few, metric="p95_jct_s")
    assert Code.TOO_FEW_SAMPLES in found.codes
    assert any("p95 JCT" in reason.text and reason.where == "" for reason in found.reasons)
    assert judged(measured(events), metric="p95_jct_s").is_valid


def test_the_client_may_add_a_share_of_the_difference_that_is_claimed(events: list[Event]) -> None:
    slow, base = measured(events, "slow", slowdown=2.0), measured(events, "base")
    values = {one.system: one.summary["metrics"]["overall"]["jct_s"]["mean"] for one in (slow, base)}
    difference_s = values["slow"] - values["base"]
    assert judged(slow, base, error=client(0.19 * difference_s)).is_valid
    text = the_reason(judged(slow, base, error=client(0.21 * difference_s)), Code.CLIENT_ERROR)
    assert "Mean JCT, and may add 20%" in text
    assert judged(slow, base, error=client(0.21 * difference_s), client_share=0.3).is_valid


def test_of_a_difference_that_matters_to_nobody_the_margin_counts(events: list[Event]) -> None:
    """Two that are equal: the smallest difference that matters is 5 %."""
    one, base = measured(events, "one"), measured(events, "base")
    mean_s = base.summary["metrics"]["overall"]["jct_s"]["mean"]
    assert judged(one, base, error=client(0.2 * 0.05 * mean_s * 0.99)).is_valid
    assert judged(one, base, error=client(0.2 * 0.05 * mean_s * 1.01)).codes == [Code.CLIENT_ERROR]


@pytest.mark.parametrize(
    ("metric", "error", "is_valid"),
    [
        ("mean_tpot_s", client(ttft_s=9.0), True),
        ("mean_tpot_s", client(itl_s=9.0), False),
        ("mean_ttft_s", client(itl_s=9.0), True),
        ("mean_ttft_s", client(ttft_s=9.0), False),
        ("mean_ttft_s", client(p99_s=9.0), True),
        ("p95_ttft_s", client(p99_s=9.0), False),
        ("makespan_s", client(ttft_s=9.0), False),
        ("output_throughput_tokens_per_s", client(ttft_s=9.0), False),
        ("output_throughput_tokens_per_s", client(itl_s=9.0), True),
    ],
)
def test_what_a_metric_depends_on_is_what_the_client_adds(
    metric: str, error: ClientError, is_valid: bool, events: list[Event]
) -> None:
    one, base = measured(events, "one"), measured(events, "base")
    assert judged(one, base, error=error, metric=metric).is_valid is is_valid


def test_of_one_system_nothing_is_claimed(events: list[Event]) -> None:
    assert judged(measured(events), error=client(9.0)).is_valid


def test_in_virtual_time_there_is_no_client_and_no_machine(events: list[Event]) -> None:
    result = measured(sent_late(events, 25, 9.0), machine={"num_cores": 1, "other_cores": 1.0})
    found = judged(result, is_virtual=True)
    assert found.is_valid and found.unchecked == dict.fromkeys(REAL_TIME_ONLY, "virtual time: no client")


def test_a_client_that_was_not_calibrated_is_said_to_be(events: list[Event]) -> None:
    assert "calibration_s=null" in judged(measured(events)).unchecked[Code.CLIENT_ERROR]


def test_every_serving_is_judged_and_says_where(events: list[Event]) -> None:
    good, bad = measured(events, "a"), measured(events, "b", machine={"num_cores": 1, "other_cores": 0.9})
    found = judged(good, bad, bad)
    assert [reason.where for reason in found.reasons] == ["repeat 0, slot 1, b", "repeat 0, slot 2, b"]
    assert found.codes == [Code.MACHINE_DISTURBED]
    assert found.reasons[0].in_words.startswith("repeat 0, slot 1, b: other programs took")
