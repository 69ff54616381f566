"""Workloads around one size."""

import numpy as np
import pytest

from tetribench.workload.arrivals import AtOnce, Poisson
from tetribench.workload.lognormal import LognormalWorkload


def test_lengths_lie_around_their_medians() -> None:
    workload = LognormalWorkload(
        name="x", arrivals=AtOnce(), prompt_tokens=500, output_tokens=50, spread=0.5, num_requests=4000
    )
    requests = workload.draw(0).requests
    prompts = [request.num_prompt_tokens for request in requests]
    assert np.median(prompts) == pytest.approx(500, rel=0.05)
    assert np.log(prompts).std() == pytest.approx(0.5, rel=0.05)
    assert np.median([request.max_output_tokens for request in requests]) == pytest.approx(50, rel=0.05)
    assert requests == workload.draw(0).requests != workload.draw(1).requests


def test_no_spread_makes_all_requests_equal() -> None:
    workload = LognormalWorkload(
        name="x", arrivals=Poisson(), prompt_tokens=7, output_tokens=1, spread=0, num_requests=9, request_rate=2.0
    )
    requests = workload.draw(0).requests
    assert {(one.num_prompt_tokens, one.max_output_tokens) for one in requests} == {(7, 1)}
    assert requests[-1].arrival_s > requests[0].arrival_s > 0


def test_no_length_is_below_one() -> None:
    workload = LognormalWorkload(name="x", arrivals=AtOnce(), prompt_tokens=1, output_tokens=1, spread=3.0)
    assert min(request.num_tokens for request in workload.draw(0).requests) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread": -0.1}, "workload.spread=-0.1: must be at least 0"),
        ({"prompt_tokens": 0}, "workload.prompt_tokens=0"),
        ({"output_tokens": 0}, "workload.output_tokens=0"),
        ({"num_requests": 0}, "workload.num_requests=0"),
        ({"request_rate": 1.0}, "arrivals at_once has no rate"),
    ],
)
def test_bad_input(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LognormalWorkload(name="x", arrivals=AtOnce(), **options)  # type: ignore[arg-type]
