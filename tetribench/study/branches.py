"""One run once more with one decision of its dispatchers changed: what would have happened.

A run is recorded with `Recorder` in the place of its dispatcher, and run again with `Branch`. Both ask the policy: a
branch in which nothing is changed is the recorded run, and that is the run without a record, to the byte.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from tetribench.core.events import Event, EventLog
from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.roles import Role
from tetribench.core.seeds import Generator
from tetribench.core.sequence import LengthRange
from tetribench.experiment import Prepared, Setup, prepare, serve
from tetribench.prefill.dispatch import Choice, Dispatcher
from tetribench.study.simulate import only_system
from tetribench.systems.base import System
from tetribench.systems.tetri import Tetri

Key = tuple[int, int]
"""Names a decision: the request, and how often it had been dispatched before; above 0 only after a loss."""


class Later(Enum):
    """What becomes of the decisions after the changed one."""

    kept = "kept"
    """Each request goes where it went: what differs is that decision and nothing else."""
    policy = "policy"
    """The policy decides, on the loads that it then sees: what differs is that decision and what follows from it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A decision as it was taken: the choice, everyone who could have been chosen, and the generator's state before."""

    choice: Choice
    instances: tuple[str, ...]
    draws: tuple[Any, ...]


class Numbering:
    """Names decisions as they come."""

    def __init__(self) -> None:
        self._num_dispatched: Counter[int] = Counter()

    def key(self, request: Request) -> Key:
        return self.next(request.id)

    def next(self, id: int) -> Key:
        self._num_dispatched[id] += 1
        return id, self._num_dispatched[id] - 1


class Recorder:
    """A dispatcher that does as `policy` and keeps what was decided, in order."""

    def __init__(self, policy: Dispatcher) -> None:
        self.taken: dict[Key, Taken] = {}
        self._policy = policy
        self._numbering = Numbering()

    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        draws = rng.getstate()
        choice = self._policy.choose(request, predicted, loads, rng)
        self.taken[self._numbering.key(request)] = Taken(choice, tuple(sorted(loads)), draws)
        return choice


class Branch:
    """A dispatcher that does as `policy`, but sends `changed` to the instance `to`.

    Every decision on record draws what it drew then, however many draws the others needed and in whatever order they
    come: no request is luckier than before. Those that are not on record, or whose instance is gone, are the policy's.
    """

    def __init__(self, policy: Dispatcher, taken: Mapping[Key, Taken], changed: Key, to: str, later: Later) -> None:
        self._policy = policy
        self._taken = taken
        self._changed = changed
        self._to = to
        self._later = later
        self._numbering = Numbering()

    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        key = self._numbering.key(request)
        taken = self._taken.get(key)
        if taken is not None:
            rng.setstate(taken.draws)
        choice = self._policy.choose(request, predicted, loads, rng)
        if key == self._changed:
            return _toward(choice, self._to)
        if self._later is Later.kept and taken is not None and taken.choice.to in loads:
            return _toward(choice, taken.choice.to)
        return choice


def _toward(choice: Choice, to: str) -> Choice:
    return replace(choice, to=to, candidates=tuple(sorted({*choice.candidates, to})))


class RecordedRun:
    """A run of the one system of `setup`, with its `events` and the decisions `taken` in order, and its branches.

    Its requests are those of `prepared`, without one those of the workload; `policy` makes of its dispatcher the one
    that decides, anew in each run. Raises ValueError where the system has nothing to decide.
    """

    def __init__(
        self,
        setup: Setup,
        prepared: Prepared | None = None,
        policy: Callable[[Dispatcher], Dispatcher] = lambda dispatcher: dispatcher,
    ) -> None:
        self._name = only_system(setup)
        self._system = _deciding(setup.systems[self._name])
        self._setup = setup
        self._prepared = prepared or prepare(setup)
        self._policy = policy
        recorder = Recorder(policy(self._system.prefill.dispatch))
        self.events = self._events(recorder)
        self.taken = recorder.taken

    def branch(self, changed: Key, to: str, later: Later) -> list[Event]:
        """The events of the run in which the decision `changed` is `to`."""
        policy = self._policy(self._system.prefill.dispatch)
        return self._events(Branch(policy, self.taken, changed, to, later))

    def _events(self, dispatcher: Dispatcher) -> list[Event]:
        changed = copy(self._system)
        changed.prefill = copy(changed.prefill)
        changed.prefill.dispatch = dispatcher
        setup, log = replace(self._setup, systems={self._name: changed}), EventLog()
        serve(
            setup, self._name, self._prepared, log, Path(), lambda instances: None, lambda num_ended, num_tokens: None
        )
        return log.events


def _deciding(system: System) -> Tetri:
    if not isinstance(system, Tetri):
        raise ValueError("systems: the system decides nothing; must be one that dispatches, such as tetri")
    num_decode = system.num_instances[Role.decode]
    if num_decode < 2:
        raise ValueError(f"system.tetri.num_decode={num_decode}: there is nothing to decide; must be at least 2")
    return system
