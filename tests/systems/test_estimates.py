"""Every point of a predicted range under both reserving policies, with responses that outlive it, in both clocks."""

from collections.abc import Sequence as SequenceOf

import pytest

from tests.support.bench import Bench
from tests.support.builders import request, tetri
from tests.support.engine import CheckingFactory
from tetribench.core.clock import WallClock
from tetribench.core.request import Request
from tetribench.core.seeds import Generator
from tetribench.core.sequence import Estimate, LengthRange, Sequence
from tetribench.decode.admit import KVView, ReserveDynamic, ReserveStatic, predicted_total, remaining

WIDTH = 8
ENDS = {Estimate.low: 0, Estimate.mean: 4, Estimate.high: 7}


class BucketZero:
    """Predicts [0, 8) for everyone."""

    runs_model = False

    def predict(self, request: Request, rng: Generator) -> LengthRange:
        return LengthRange(0, WIDTH)


class Watched:
    """A policy, and what it was told of every sequence: (tokens produced, expected in all, expected to come)."""

    def __init__(self, policy: ReserveStatic | ReserveDynamic) -> None:
        self.policy = policy
        self.seen: set[tuple[int, int, int]] = set()

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        for one in [candidate, *members]:
            num_output = predicted_total(one, self.policy.estimate) - one.request.num_prompt_tokens
            self.seen.add((len(one.output_ids), num_output, remaining(one, self.policy.estimate)))
        return self.policy.admits(candidate, members, kv)


@pytest.mark.parametrize("is_real_time", [False, pytest.param(True, marks=pytest.mark.alone)])
@pytest.mark.parametrize("policy", [ReserveStatic, ReserveDynamic])
@pytest.mark.parametrize("estimate", Estimate)
def test_who_outlives_its_prediction_moves_on_a_bucket_and_everyone_is_served(
    estimate: Estimate, policy: type[ReserveStatic | ReserveDynamic], is_real_time: bool
) -> None:
    watched = Watched(policy(estimate=estimate))
    system = tetri(admit=watched, predict=BucketZero(), watermark=0.0)
    requests = [request(id, 10 + id, 40, 0.004 * id) for id in range(12)]
    clock = WallClock() if is_real_time else None
    Bench(system, CheckingFactory(num_blocks=30, block_size=4), clock=clock).run(requests)
    assert max(produced for produced, _, _ in watched.seen) > 2 * WIDTH, "nobody outlived two buckets"
    for produced, num_output, num_to_come in watched.seen:
        ends = [ENDS[estimate] + bucket * WIDTH for bucket in range(10)]
        assert num_output == min(end for end in ends if end >= produced)
        assert num_to_come == max(num_output - produced, 1)
