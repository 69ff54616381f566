import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.workload.lengths import OUTPUT_TOKENS, PROMPT_TOKENS, QUANTILES, LengthClass, LengthDistribution, Task
from tetribench.workload.seeds import generator

DISTRIBUTIONS = [*PROMPT_TOKENS.values(), *OUTPUT_TOKENS.values()]


def sample(distribution: LengthDistribution, num: int, length_class: LengthClass, seed: int = 0) -> list[int]:
    return distribution.sample(generator(seed, "test"), num, length_class)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_quantiles_are_the_measured_ones(distribution: LengthDistribution) -> None:
    assert len(distribution.tokens) == len(QUANTILES)
    assert list(distribution.tokens) == sorted(set(distribution.tokens))
    lengths = np.asarray(sample(distribution, 40_000, LengthClass.any))
    for tokens, quantile in zip(distribution.tokens, QUANTILES, strict=True):
        assert distribution.share_at_most(tokens) == pytest.approx(quantile)
        assert np.mean(lengths <= tokens) == pytest.approx(quantile, abs=0.01)


def test_lengths_between_quantiles_are_log_linear() -> None:
    conversation = PROMPT_TOKENS[Task.conversation]
    assert conversation.share_at_most(round((203 * 567) ** 0.5)) == pytest.approx(0.625, abs=0.001)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@given(seed=st.integers(0, 2**32))
def test_every_length_is_of_its_class(distribution: LengthDistribution, seed: int) -> None:
    assert all(1 <= length <= distribution.tokens[-1] for length in sample(distribution, 30, LengthClass.any, seed))
    assert all(1 <= length <= distribution.heavy_above for length in sample(distribution, 30, LengthClass.light, seed))
    heavy = sample(distribution, 30, LengthClass.heavy, seed)
    assert all(distribution.heavy_above < length <= distribution.tokens[-1] for length in heavy)


class Edges:
    """Uniform numbers at both ends of their range."""

    def random(self, num: int) -> np.ndarray:
        return np.array([0.0, np.nextafter(1.0, 0.0)])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_ends_of_a_class_are_not_rounded_out_of_it(distribution: LengthDistribution) -> None:
    ends = {kind: distribution.sample(Edges(), 2, kind) for kind in LengthClass}  # type: ignore[arg-type]
    threshold, longest = distribution.heavy_above, distribution.tokens[-1]
    assert ends[LengthClass.any] == [longest, pytest.approx(1, abs=1)]
    assert ends[LengthClass.light] == [threshold, pytest.approx(1, abs=1)]
    assert ends[LengthClass.heavy] == [longest, threshold + 1]


@pytest.mark.parametrize("length_class", [LengthClass.light, LengthClass.heavy])
def test_a_class_is_the_distribution_restricted_to_it(length_class: LengthClass) -> None:
    conversation = OUTPUT_TOKENS[Task.conversation]
    everything = np.asarray(sample(conversation, 80_000, LengthClass.any, seed=1))
    is_light = everything <= conversation.heavy_above
    expected = everything[is_light if length_class is LengthClass.light else ~is_light]
    drawn = np.asarray(sample(conversation, 40_000, length_class, seed=2))
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.mean(drawn <= np.quantile(expected, quantile)) == pytest.approx(quantile, abs=0.03)


def test_more_lengths_begin_alike() -> None:
    conversation = PROMPT_TOKENS[Task.conversation]
    assert sample(conversation, 10, LengthClass.any) == sample(conversation, 100, LengthClass.any)[:10]
