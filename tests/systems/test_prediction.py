"""Predictions that take their time, on a whole system whose every invariant is checked."""

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import request, tetri
from tests.support.engine import CheckingFactory
from tetribench.core.clock import Clock
from tetribench.core.events import EventKind
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.engine.base import Engine, LengthPredictor
from tetribench.kv.transfer import Granularity
from tetribench.prefill.predict_mode import Parallel, Sequential
from tetribench.prefill.predictor import PrefillPredictor


class Slow:
    """Takes `seconds` for each request of a group."""

    description = "slow"

    def __init__(self, clock: Clock, seconds: float, is_parallel: bool) -> None:
        self.is_parallel = is_parallel
        self._clock, self._seconds = clock, seconds
        self.groups: list[list[int]] = []

    async def predict(self, requests: list[Request]) -> dict[int, LengthRange]:
        self.groups.append([one.id for one in requests])
        await self._clock.sleep(self._seconds * len(requests))
        return {one.id: LengthRange(0, 200) for one in requests}

    def close(self) -> None:
        """Nothing is held."""


def run(
    requests: list[Request], seconds: float, is_parallel: bool, factory: CheckingFactory, **policies: object
) -> Bench:
    def build(self: PrefillPredictor, engine: Engine, clock: Clock, spare_core: int | None) -> LengthPredictor:
        return Slow(clock, seconds, is_parallel)

    with mock.patch.object(PrefillPredictor, "build", build):
        return Bench(tetri(num_prefill=2, **policies), factory).run(requests)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 30), st.booleans()), min_size=1, max_size=12),
    seconds=st.sampled_from([0.0, 0.001, 0.05, 1.0]),
    is_parallel=st.booleans(),
    granularity=st.sampled_from(Granularity),
)
def test_every_request_is_served_however_long_predictions_take(
    lengths: list[tuple[int, int, bool]], seconds: float, is_parallel: bool, granularity: Granularity
) -> None:
    requests = [request(id, prompt, output, natural_stop=True) for id, (prompt, output, _) in enumerate(lengths)]
    stops = {id: 0 for id, (_, _, stops_at_once) in enumerate(lengths) if stops_at_once}
    factory = CheckingFactory(num_blocks=20, stops=stops)
    bench = run(requests, seconds, is_parallel, factory, granularity=granularity)
    if not is_parallel:
        predicted, started = bench.times(EventKind.PREDICTED), bench.times(EventKind.PREFILL_STARTED)
        assert all(predicted[id][0] <= started[id][0] for id in range(len(lengths)))


def test_in_parallel_a_first_token_does_not_wait_for_its_prediction() -> None:
    bench = run([request(0, 64, 10)], 5.0, True, CheckingFactory())
    assert bench.times(EventKind.FIRST_TOKEN)[0][0] < 5.0 == bench.times(EventKind.DISPATCHED)[0][0]
    assert bench.times(EventKind.PREDICTED)[0] == [5.0]


def test_the_modes_of_the_configuration_reach_the_instances() -> None:
    for mode in (Parallel(), Sequential()):
        bench = Bench(tetri(predict_mode=mode), CheckingFactory()).run([request(0), request(1)])
        ready = {event.source: event.details for event in bench.log.events if event.kind is EventKind.INSTANCE_READY}
        assert ready["prefill-0"]["predicts_in_parallel"] is mode.is_parallel
        # a decode instance may come to prefill
        assert ready["prefill-0"]["predictor"] == ready["decode-0"]["predictor"] == "Oracle, takes no time"


@pytest.mark.parametrize("is_parallel", [True, False])
def test_an_error_in_a_prediction_fails_the_run(is_parallel: bool) -> None:
    async def predict(self: Slow, requests: list[Request]) -> dict[int, LengthRange]:
        raise RuntimeError("the classifier fell off the bus")

    with (
        mock.patch.object(Slow, "predict", predict),
        pytest.raises(Exception, match=r"prefill-\d: RuntimeError: the classifier fell off the bus"),
    ):
        run([request(0)], 0.0, is_parallel, CheckingFactory())
