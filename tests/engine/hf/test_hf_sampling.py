from collections import Counter
from collections.abc import Callable

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver, tiny_engine
from tetribench.engine.hf.sampling import Sampler
from tetribench.engine.hf.schema import HFEngine

LOGITS = torch.log(torch.tensor([[0.1, 0.5, 0.0001, 0.25, 0.1499]]))


def draw(sampler: Sampler, num_draws: int) -> Counter[int]:
    logits = LOGITS.expand(num_draws, -1)
    return Counter(sampler.choose(logits, list(range(num_draws)), [9] * num_draws))


def test_temperature_zero_is_greedy() -> None:
    assert draw(Sampler(0.0, None, 1.0, 0), 3) == {1: 3}


def test_a_draw_depends_on_seed_request_and_position_only() -> None:
    sampler = Sampler(1.0, None, 1.0, seed=4)
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    together = sampler.choose(logits, [3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8])
    apart = [sampler.choose(logits[i : i + 1], [[3, 1, 4, 1, 5, 9][i]], [[2, 6, 5, 3, 5, 8][i]])[0] for i in range(6)]
    assert together == apart
    flat = torch.zeros(8, 1000)
    ids, positions = [1, 1, 2, 2, 3, 3, 4, 4], [1, 2, 1, 2, 1, 2, 1, 2]
    assert len(set(sampler.choose(flat, ids, positions))) == 8
    assert sampler.choose(flat, ids, positions) != Sampler(1.0, None, 1.0, seed=5).choose(flat, ids, positions)


def test_draws_follow_the_distribution() -> None:
    counts = draw(Sampler(1.0, None, 1.0, 0), 4000)
    for token, probability in enumerate([0.1, 0.5, 0.0001, 0.25, 0.1499]):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_low_temperature_sharpens() -> None:
    assert draw(Sampler(0.5, None, 1.0, 0), 2000)[1] / 2000 == pytest.approx(0.25 / 0.34497, abs=0.04)


@pytest.mark.parametrize(
    ("top_k", "top_p", "tokens"),
    [(1, 1.0, {1}), (2, 1.0, {1, 3}), (None, 0.5, {1}), (None, 0.51, {1, 3}), (None, 0.8, {1, 3, 4}), (3, 0.6, {1, 3})],
)
def test_top_k_and_top_p_cut_the_tail(top_k: int | None, top_p: float, tokens: set[int]) -> None:
    assert set(draw(Sampler(1.0, top_k, top_p, 0), 500)) == tokens


def test_top_p_is_taken_of_what_top_k_leaves() -> None:
    """Of the two left, token 1 has two thirds of the mass."""
    assert set(draw(Sampler(1.0, 2, 0.6, 0), 500)) == {1}


def test_the_engine_samples_alike_in_any_company(make_driver: Callable[[HFEngine], Driver]) -> None:
    driver = make_driver(tiny_engine(MODELS["opt"], temperature=1.0))
    prompts = [[11, 22, 33], list(range(40)), [5]]
    together = driver.finish([driver.sequence(i, prompt, 12) for i, prompt in enumerate(prompts)], 16)
    alone = [driver.finish([driver.sequence(i, prompt, 12)], 512)[0] for i, prompt in enumerate(prompts)]
    greedy = make_driver(tiny_engine(MODELS["opt"]))
    assert together == alone
    assert alone[0] != greedy.finish([greedy.sequence(0, prompts[0], 12)], 512)[0]
