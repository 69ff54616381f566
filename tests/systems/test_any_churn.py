"""Instances that die, leave, come and flip at any moment: every request finishes exactly once, with the right tokens.

`Bench.run` checks lives, tokens, the invariants of every scheduler that is left, and every KV slot that is read.
"""

from collections.abc import Sequence as SequenceOf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import tetri
from tests.support.engine import CheckingFactory
from tests.systems.test_any_workload import loops, memories, profile, tetris, workloads
from tetribench.control.flip import Idle, LowLoad, QueueRatio
from tetribench.core.events import Event, EventKind
from tetribench.core.request import Request
from tetribench.drive.loadgen import Loop

pytestmark = pytest.mark.no_cover

flips = st.sampled_from([Idle(hold_s=0.0), Idle(hold_s=0.05), LowLoad(share=0.3, hold_s=0.01), QueueRatio(hold_s=0.0)])


@st.composite
def churns(draw: st.DrawFn, num_prefill: int, num_decode: int) -> list[str]:
    """Any steps that leave two instances; who they are, the system has to see to."""
    names = [f"prefill-{n}" for n in range(num_prefill)] + [f"decode-{n}" for n in range(num_decode)]
    num_ends = draw(st.integers(0, len(names) - 2))
    ends = draw(st.permutations(names))[:num_ends]
    steps = [f"{draw(st.sampled_from(['kill', 'kill', 'remove']))} {name}" for name in ends]
    steps += [f"flip {name}" for name in draw(st.lists(st.sampled_from(names), max_size=4))]
    steps += [f"add {role}" for role in draw(st.lists(st.sampled_from(["prefill", "decode"]), max_size=2))]
    return [f"{draw(st.integers(0, 400)) / 1000} {step}" for step in steps]


def kinds(events: SequenceOf[Event], kind: EventKind) -> list[Event]:
    return [event for event in events if event.kind is kind]


@profile
@given(workloads(), memories(), tetris(), loops, flips, st.integers(1, 3), st.integers(1, 3), st.data())
def test_whatever_happens_to_the_instances_every_request_is_served_once(
    requests: list[Request],
    factory: CheckingFactory,
    changes: dict[str, Any],
    loop: Loop,
    flip: Any,
    num_prefill: int,
    num_decode: int,
    data: st.DataObject,
) -> None:
    num_decode += num_prefill == num_decode == 1
    churn = data.draw(churns(num_prefill, num_decode))
    changes |= {"num_prefill": num_prefill, "num_decode": num_decode, "flip": flip, "churn": churn}
    bench = Bench(tetri(**changes), factory)
    bench.run_only(requests, loop)
    lost = [event.details["reason"] for event in kinds(bench.log.events, EventKind.INSTANCE_LOST)]
    assert set(lost) <= {"killed"}  # recovery must not hide a fault of our own
    bench.assert_well(requests)
