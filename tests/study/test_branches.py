"""Runs with one decision changed: nothing else differs, and nothing at all where the decision is the same."""

from functools import cache

import pytest
from hydra import compose, initialize_config_dir

from tests.support.builders import load, request
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.core.events import Event, EventKind, EventLog
from tetribench.core.load import InstanceLoad
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange
from tetribench.experiment import Setup
from tetribench.metrics.log import encode_event
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.study.branches import Branch, Later, RecordedRun, Recorder
from tetribench.study.simulate import simulate

LIGHT = LengthRange(0, 200)
POLICIES = ("power_of_two", "random", "imbalance")


def setup(*options: str) -> Setup:
    """Sixty requests on two prefill and three decode instances, in virtual time."""
    register()
    small = ["workload.num_requests=60", "system.tetri.num_decode=3", "workload.request_rate=20"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return Composition(compose("config", ["+experiment=regret", *small, *options]), "").setup()


def log(events: list[Event]) -> bytes:
    return b"".join(encode_event(event) for event in events)


def targets(events: list[Event]) -> dict[int, str]:
    return {event.requests[0]: event.details["to"] for event in events if event.kind is EventKind.DISPATCHED}


@cache
def recorded(policy: str) -> RecordedRun:
    """Served once for all tests, which only look at it."""
    return RecordedRun(setup(f"prefill/dispatch={policy}"))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("later", Later)
def test_the_same_choice_again_is_the_same_run_to_the_byte(policy: str, later: Later) -> None:
    run = recorded(policy)
    for key in list(run.taken)[::9]:
        assert log(run.branch(key, run.taken[key].choice.to, later)) == log(run.events)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_record_changes_nothing(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = EventLog()
    monkeypatch.setattr("tetribench.study.simulate.EventLog", lambda: plain)
    simulate(setup(f"prefill/dispatch={policy}"))
    assert log(recorded(policy).events) == log(plain.events)


@pytest.mark.parametrize("policy", POLICIES)
def test_where_the_others_are_kept_only_the_changed_decision_differs(policy: str) -> None:
    run = recorded(policy)
    before = targets(run.events)
    key = list(run.taken)[20]
    for to in run.taken[key].instances:
        assert targets(run.branch(key, to, Later.kept)) == {**before, key[0]: to}


def test_the_policy_goes_on_with_what_it_then_sees() -> None:
    run = recorded("power_of_two")
    before, keys = targets(run.events), list(run.taken)
    key = keys[20]
    to = next(name for name in run.taken[key].instances if name != before[key[0]])
    after = targets(run.branch(key, to, Later.policy))
    assert after[key[0]] == to
    assert {id: after[id] for id, _ in keys[:20]} == {id: before[id] for id, _ in keys[:20]}
    assert after != {**before, key[0]: to}, "somebody after it has decided otherwise"


def test_a_policy_that_looks_at_nothing_decides_the_same_whatever_came_before() -> None:
    """Draws belong to requests: a changed decision moves those of nobody else."""
    run = recorded("random")
    key = next(iter(run.taken))
    for to in run.taken[key].instances:
        assert targets(run.branch(key, to, Later.policy)) == {**targets(run.events), key[0]: to}


def drawn(num_fitting: int, later: Later = Later.policy, *, record: bool = True) -> list[str]:
    """Where ten requests go when the first three find memory on `num_fitting` instances; they were recorded on four."""
    loads: dict[str, InstanceLoad] = {name: load() for name in "abcd"}
    recorder = Recorder(PowerOfTwo())
    rng = generator(0)
    for id in range(10):
        recorder.choose(request(id), LIGHT, loads, rng)
    fewer = loads | {name: load(0) for name in "abcd"[num_fitting:]}
    branch = Branch(PowerOfTwo(), recorder.taken if record else {}, (99, 0), "a", later)
    rng = generator(0)
    return [branch.choose(request(id), LIGHT, fewer if id < 3 else loads, rng).to for id in range(10)]


def test_draws_stay_with_their_request_however_many_the_ones_before_needed() -> None:
    aligned, moved = ([drawn(num, record=record)[3:] for num in (1, 2, 3, 4)] for record in (True, False))
    assert len({tuple(one) for one in aligned}) == 1
    assert len({tuple(one) for one in moved}) > 1, "without the record they would move"


def test_what_is_not_on_record_or_gone_is_the_policys() -> None:
    loads: dict[str, InstanceLoad] = {name: load() for name in "ab"}
    recorder = Recorder(PowerOfTwo())
    to = recorder.choose(request(0), LIGHT, loads, generator(0)).to
    (other,) = {*loads} - {to}
    branch = Branch(PowerOfTwo(), recorder.taken, (9, 0), "a", Later.kept)
    rest = {other: loads[other]}
    assert branch.choose(request(0), LIGHT, rest, generator(0)).to == other, "where it went is gone"
    assert branch.choose(request(0), LIGHT, rest, generator(0)).to == other, "it was never dispatched twice"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["system.tetri.num_decode=1"], "system.tetri.num_decode=1: there is nothing to decide; must be at least 2"),
        (["systems=[vllm_like]"], "systems: the system decides nothing; must be one that dispatches, such as tetri"),
        (["systems=[tetri,vllm_like]"], "a cell of an experiment runs one system"),
        (["runtime=inline"], "must be sim"),
    ],
)
def test_what_has_no_branches_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecordedRun(setup(*options))
