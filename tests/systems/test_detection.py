"""Show by simulation what the statistics find: nothing where there is nothing, and a tenth where there is a tenth."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.metrics.test_paired import JCT, result
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.core.events import EventKind, EventLog
from tetribench.experiment import Prepared, Setup, prepare, serve
from tetribench.metrics.paired import Outcome, Ratio, Served, _band, _by_repeat, _mean, _ratio
from tetribench.metrics.rule import Rule
from tetribench.repeats import orders

pytestmark = pytest.mark.no_cover

NUM_REPEATS = 5
NOISE = ["engine.step_noise=0.1", "engine.run_noise=0.02"]
SLOWED = {
    "hardware.overhead_s": "x1.1",
    "hardware.bytes_per_s": "x0.909",
    "hardware.kv_bytes_per_s": "x0.909",
    "hardware.flops_per_s": "x0.909",
}
"""Ten percent more time for everything that an iteration does."""

Compose = Callable[[list[str]], Composition]


@pytest.fixture
def composition() -> Compose:
    register(with_experiments=False)

    def made(overrides: list[str]) -> Composition:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return Composition(compose("config", ["+workload=lpld", "runtime=sim", *NOISE, *overrides]), "")

    return made


def experiment(composed: Composition, seed: int, slowed: dict[str, str]) -> Ratio:
    """vllm_like against itself, once on other hardware; each twice in every repeat, as in real time."""
    arms = {"new": composed.variant(slowed), "base": composed}
    served = []
    plan = orders(list(arms), seed, is_twice=True)
    for repeat in range(NUM_REPEATS):
        setups = {name: arm.variant({"seed": 100 * seed + repeat}).setup() for name, arm in arms.items()}
        prepared = {name: prepare(setup) for name, setup in setups.items()}
        for slot, name in enumerate(next(plan)):
            noisy = replace(prepared[name], engine=prepared[name].engine.in_slot(f"{repeat}.{slot}"))
            served.append(Served(repeat, slot, result(name, jct_s(setups[name], noisy))))
    mean = _mean(_by_repeat(served, list(arms)), JCT, "new", "base", seed)
    return _ratio(mean, mean.p, _band(_by_repeat(served, list(arms)), JCT, "base"), JCT, Rule())


def jct_s(setup: Setup, prepared: Prepared) -> list[float]:
    """Of every request, in the order of their numbers."""
    log = EventLog()
    serve(setup, "vllm_like", prepared, log, Path(), lambda facts: None, lambda ended, tokens: None)
    times_s: dict[EventKind, dict[int, float]] = {EventKind.ARRIVED: {}, EventKind.FINISHED: {}}
    for event in log.events:
        if event.kind in times_s:
            times_s[event.kind][event.requests[0]] = event.time_s
    arrived_s = times_s[EventKind.ARRIVED]
    return [times_s[EventKind.FINISHED][id] - arrived_s[id] for id in sorted(arrived_s)]


def test_the_same_system_is_not_told_from_itself(composition: Compose) -> None:
    composed = composition(["systems=[vllm_like]", "workload.num_requests=16"])
    outcomes = [experiment(composed, seed, {}).outcome for seed in range(20)]
    assert sum(outcome in (Outcome.UNDECIDED, Outcome.EQUIVALENT) for outcome in outcomes) >= 19


def test_a_tenth_is_found(composition: Compose) -> None:
    composed = composition(["systems=[vllm_like]", "workload.num_requests=16"])
    outcomes = [experiment(composed, seed, SLOWED).outcome for seed in range(20)]
    assert sum(outcome is Outcome.WORSE for outcome in outcomes) >= 18
