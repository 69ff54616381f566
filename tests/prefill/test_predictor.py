import asyncio
from pathlib import Path

import pytest

from tests.support.builders import request, sequence
from tests.support.clock import BoundedClock
from tests.support.engine import CheckingFactory
from tests.training import tiny
from tetribench.core.clock import Clock, WallClock, run_virtual
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange
from tetribench.engine.base import Batch, LengthPredictor, PrefillChunk
from tetribench.engine.cost_engine import CostModelEngine, CostModelFactory
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import Model
from tetribench.prefill.predict import Learned, NoisyOracle, NoPrediction, Oracle, Predictor
from tetribench.prefill.predict_mode import Parallel, PredictMode, Sequential
from tetribench.prefill.predictor import PrefillPredictor


def cost_model(clock: Clock, slowdown: float | None = 2.0) -> CostModelEngine:
    """A device on which OPT-125M takes 0.25 s for each 1,000 tokens of a batch, and next to nothing else costs."""
    hardware = Hardware(
        name="h",
        source="none",
        memory_bytes=1e12,
        overhead_s=0.0,
        bytes_per_s=1e30,
        flops_per_s=1e12,
        copy_bytes_per_s=1.0,
        host_bytes_per_s=1.0,
        co_run_slowdown=slowdown,
    )
    return CostModelFactory(model=Model(name="m"), hardware=hardware).build(clock, None)


def seconds(predictor: LengthPredictor, clock: BoundedClock, requests: list[Request]) -> float:
    run_virtual(clock, predictor.predict(requests))
    return clock.now()


def made(policy: Predictor, clock: BoundedClock, mode: PredictMode, slowdown: float | None = 2.0) -> LengthPredictor:
    return PrefillPredictor(policy, mode, seed=0).build(cost_model(clock, slowdown), clock, None)


def test_a_prediction_depends_on_the_seed_and_the_request_only() -> None:
    requests = [request(id, output=500) for id in range(40)]

    def predictions(seed: int, order: int) -> dict[int, LengthRange]:
        predictor = PrefillPredictor(NoisyOracle(), Parallel(), seed)
        built = predictor.build(CheckingFactory().build(WallClock(), None), WallClock(), None)
        return asyncio.run(built.predict(requests[::order]))

    once = predictions(1, 1)
    assert len(once) == 40 and len(set(once.values())) == 3
    assert predictions(1, -1) == once
    assert predictions(2, 1) != once


@pytest.mark.parametrize("mode", [Parallel(), Sequential()])
def test_an_oracle_is_charged_for_the_padded_batch(mode: PredictMode) -> None:
    clock = BoundedClock()
    predictor = made(Oracle(), clock, mode)
    assert predictor.description == "Oracle, charged as OPT-125M" and predictor.is_parallel is mode.is_parallel
    assert seconds(predictor, clock, [request(0, 100), request(1, 500)]) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("policy", "mode", "slowdown"),
    [(NoPrediction(), Parallel(), 2.0), (Oracle(), Parallel(charge=False), 2.0), (Oracle(), Parallel(), None)],
)
def test_what_runs_no_model_or_is_not_charged_takes_no_time(
    policy: Predictor, mode: PredictMode, slowdown: float | None
) -> None:
    clock = BoundedClock()
    predictor = made(policy, clock, mode, slowdown)
    assert predictor.description.endswith("takes no time")
    assert seconds(predictor, clock, [request(0, 100)]) == 0.0


def test_an_iteration_and_a_prediction_beside_it_are_both_slowed() -> None:
    clock = BoundedClock()
    engine = cost_model(clock)
    predictor = PrefillPredictor(Oracle(), Parallel(), 0).build(engine, clock, None)

    batch = Batch(prefill=[PrefillChunk(sequence(0, 1000), 0, 1000)])
    ends: dict[str, float] = {}

    async def timed(name: str, work: object, after_s: float = 0.0) -> None:
        await clock.sleep(after_s)
        await work  # type: ignore[misc]
        ends[name] = clock.now()

    async def both() -> None:
        await timed("alone", engine.run(batch))
        start_s = clock.now()
        later_s = ends["alone"] / 2
        await asyncio.gather(
            timed("iteration", engine.run(batch)), timed("prediction", predictor.predict([request(0, 1000)]), later_s)
        )
        ends["iteration"] -= start_s
        ends["prediction"] -= start_s + later_s
        start_s = clock.now()
        await timed("after", engine.run(batch))
        ends["after"] -= start_s

    run_virtual(clock, both())
    assert ends["iteration"] == pytest.approx(1.5 * ends["alone"]), "its second half is beside the prediction"
    assert ends["after"] == pytest.approx(ends["alone"]) and ends["prediction"] > 0.25


def test_a_learned_predictor_answers_the_same_on_every_clock(tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint(tmp_path / "checkpoint")
    policy = Learned(checkpoint=str(checkpoint))
    requests = [request(id, text=text) for id, text in enumerate(["short story", "long", "please number " * 30])]
    real = CheckingFactory().build(WallClock(), None)
    real.info = real.info.__class__(**{**real.info.as_dict(), "device": "cpu"})
    answers = []
    for mode, spare_core, where in [
        (Sequential(), 0, "takes turns with the model"),
        (Parallel(), None, "takes turns with the model: there is no core to spare"),
        (Parallel(), 0, "in its own process on core 0"),
    ]:
        predictor = PrefillPredictor(policy, mode, 0).build(real, WallClock(), spare_core)
        assert predictor.description == f"learned, granularity 10, {where}"
        assert predictor.is_parallel is (where == "in its own process on core 0")
        answers.append(asyncio.run(predictor.predict(requests)))
        predictor.close()
    clock = BoundedClock()
    predictor = PrefillPredictor(policy, Parallel(), 0).build(cost_model(clock), clock, None)
    assert predictor.description == "learned, granularity 10, charged as OPT-125M"
    answers.append(run_virtual(clock, predictor.predict(requests)))
    predictor.close()
    assert clock.now() > 0
    assert answers == [answers[0]] * 4 and {one.high - one.low for one in answers[0].values()} == {10}


@pytest.mark.parametrize("has_gone", [False, True], ids=["dying", "gone"])
def test_a_dead_predictor_process_is_an_error(has_gone: bool, tmp_path: Path) -> None:
    from tetribench.engine.checkpoint import read_checkpoint
    from tetribench.engine.hf.predictor_runtime import _Spawned

    spawned = _Spawned(read_checkpoint(tiny.checkpoint(tmp_path / "checkpoint")), 0)
    spawned._process.kill()
    if has_gone:
        spawned._process.wait()
    with pytest.raises(RuntimeError, match="the length predictor's process ended with code -9"):
        asyncio.run(spawned.buckets(["short"]))
    spawned.close()


def test_prompts_without_words_are_refused(tmp_path: Path) -> None:
    learned = PrefillPredictor(Learned(checkpoint=str(tiny.checkpoint(tmp_path / "checkpoint"))), Parallel(), 0)
    learned.check([request(0, text="short")])
    with pytest.raises(ValueError, match="prefill/predict=learned: reads prompts, and these requests have none"):
        learned.check([request(0, text="short"), request(1)])
    PrefillPredictor(Oracle(), Parallel(), 0).check([request(0)])
