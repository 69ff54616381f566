"""The null server and the calibration on it: in virtual time nothing is late but what is made so."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import request
from tetribench.core.events import EventKind
from tetribench.core.messages import Drain
from tetribench.core.request import Request
from tetribench.drive.calibration import ENOUGH_REQUESTS, MAX_ROUNDS, calibrate, planned
from tetribench.drive.loadgen import ClosedLoop, OpenLoop
from tetribench.drive.null_server import STEP_S, NullEngineFactory, NullScheduler, NullServer
from tetribench.instance.runtime import Inline, Process, Runtime, Sim
from tetribench.kv.transfer import Moved, Push
from tetribench.metrics.client_error import ClientError
from tetribench.metrics.log import read_events


def uniform(num_requests: int, per_s: float, output: int = 20) -> list[Request]:
    return [request(id, 30, output, arrival_s=id / per_s, prompt_ids=tuple(range(30))) for id in range(num_requests)]


def calibrated(folder: Path, runtime: Runtime, requests: list[Request], load_s: float = 2.0) -> ClientError:
    return calibrate(requests, OpenLoop(), runtime, num_instances=2, load_s=load_s, folder=folder)


def test_in_virtual_time_the_client_has_no_error(tmp_path: Path) -> None:
    error = calibrated(tmp_path, Sim(), uniform(150, per_s=170.0))
    assert (error.num_requests, error.ttft.num_samples, error.itl.num_samples) == (150, 150, 150 * 19)
    assert error.ttft.mean_s == pytest.approx(0.0, abs=1e-9) and error.ttft.p99_s == pytest.approx(0.0, abs=1e-9)
    assert error.itl.mean_s == pytest.approx(0.0, abs=1e-9) and error.itl.p99_s == pytest.approx(0.0, abs=1e-9)
    assert error.asked_per_s == pytest.approx(170.0) and error.delivered_per_s == pytest.approx(170.0)
    assert error.mean_send_delay_s == error.max_send_delay_s == 0.0
    assert 170 * 20 * STEP_S * 0.9 < error.num_streams < 170 * 20 * STEP_S * 1.2


class SlowPost(Sim):
    """Every message takes 3 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.message_s = 0.003


def test_what_messages_take_is_found_again(tmp_path: Path) -> None:
    """To the instance and back; the gaps between tokens are as they were."""
    error = calibrated(tmp_path, SlowPost(), uniform(150, per_s=170.0))
    assert error.ttft.mean_s == pytest.approx(0.006) and error.ttft.p99_s == pytest.approx(0.006)
    assert error.itl.mean_s == pytest.approx(0.0, abs=1e-9)


def test_tokens_come_with_the_steps(tmp_path: Path) -> None:
    calibrated(tmp_path, Sim(), uniform(20, per_s=33.0))
    events = read_events(tmp_path / "events.jsonl")
    ends_s = [event.time_s for event in events if event.kind is EventKind.ITERATION]
    assert len(ends_s) > 50
    assert [end_s / STEP_S for end_s in ends_s] == pytest.approx([round(end_s / STEP_S) for end_s in ends_s])


@pytest.mark.alone
@pytest.mark.parametrize("runtime", [Inline(), Process()], ids=["inline", "process"])
def test_in_real_time_it_says_what_the_client_adds(runtime: Runtime, tmp_path: Path) -> None:
    error = calibrated(tmp_path, runtime, uniform(15, per_s=100.0, output=10), load_s=4.0)
    assert error.num_requests == 15 * MAX_ROUNDS < ENOUGH_REQUESTS
    assert error.ttft.mean_s is not None and error.ttft.mean_s > 0
    assert error.ttft.p99_s is None and error.itl.p99_s is not None
    assert error.max_send_delay_s >= error.mean_send_delay_s >= 0.0


def test_a_closed_loop_is_calibrated_as_one(tmp_path: Path) -> None:
    error = calibrate(
        uniform(10, per_s=1.0), ClosedLoop(concurrency=6), Sim(), num_instances=2, load_s=2.0, folder=tmp_path
    )
    assert error.num_streams == 6
    assert 6 * 2.0 / (21 * STEP_S) <= error.num_requests <= 6 * 2.0 / (21 * STEP_S) + 6
    assert error.ttft.mean_s == pytest.approx(0.0, abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(0.0, 50.0), st.integers(1, 2000)), min_size=1, max_size=150),
    st.floats(0.5, 8.0),
)
def test_a_planned_load_ends_in_time(drawn: list[tuple[float, int]], load_s: float) -> None:
    requests = [request(id, 5, output, arrival_s) for id, (arrival_s, output) in enumerate(sorted(drawn))]
    found = planned(requests, OpenLoop(), load_s)
    assert [one.id for one in found] == list(range(len(found)))
    arrivals_s = [one.arrival_s for one in found]
    assert arrivals_s == sorted(arrivals_s) and arrivals_s[0] == 0.0
    assert all(one.arrival_s + one.max_output_tokens * STEP_S <= load_s + STEP_S for one in found)


def test_it_is_the_busiest_stretch_that_is_served() -> None:
    quiet, busy = [0.0, 10.0, 20.0], [30.0, 30.1, 30.2, 30.4, 31.2]
    requests = [request(id, arrival_s=arrival_s) for id, arrival_s in enumerate([*quiet, *busy])]
    found = planned(requests, OpenLoop(), load_s=2.0 * MAX_ROUNDS)
    in_one_round = [0.0, 0.1, 0.2, 0.4]
    assert [one.arrival_s for one in found] == pytest.approx(
        [2.0 * number + arrival_s for number in range(MAX_ROUNDS) for arrival_s in in_one_round]
    )


def test_responses_are_shortened_by_one_factor_and_only_where_they_have_to_be() -> None:
    lengths = [1, 30, 300, 600]
    requests = [request(id, output=lengths[id % 4]) for id in range(ENOUGH_REQUESTS)]
    longest = int(3.0 / STEP_S)
    assert [one.max_output_tokens for one in planned(requests, OpenLoop(), 6.0)[:4]] == [1, 15, 150, longest]
    assert [one.max_output_tokens for one in planned(requests, OpenLoop(), 60.0)[:4]] == lengths


def test_a_null_instance_takes_requests_and_nothing_else() -> None:
    scheduler = NullScheduler("null")
    with pytest.raises(AssertionError, match="a null instance got"):
        scheduler.receive(Drain(None), 0.0)
    with pytest.raises(AssertionError, match="pushes nothing"):
        scheduler.moved(Moved(Push(0, 0, "x", [], [], is_last=True), 0.0, 0.0, 0))


def test_a_null_server_shares_the_requests() -> None:
    factory = NullEngineFactory()
    plan = NullServer(num_instances=3).plan(factory)
    assert [spec.name for spec in plan.instances] == ["colocated-0", "colocated-1", "colocated-2"]
    assert (
        factory.sized(3) is factory.in_slot("0.1") is factory.with_host_memory() is factory
        and factory.num_blocks() == 1
    )
