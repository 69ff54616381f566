import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.training import baselines
from tetribench.training.evaluate import accuracy, by_source, calibration, confusion, num_buckets_for, split, wilson
from tetribench.training.lengths import Length


def length(prompt: str, source: str) -> Length:
    return Length(
        prompt=prompt,
        source=source,
        model="m",
        num_prompt_tokens=1,
        num_output_tokens=1,
        max_output_tokens=9,
        was_capped=False,
    )


@given(st.integers(0, 9), st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), max_size=60))
def test_a_split_keeps_every_prompt_once(seed: int, drawn: list[tuple[int, str]]) -> None:
    lengths = [length(f"{source}{number}", source) for number, source in drawn]
    parts = split(lengths, 0.25, seed)
    assert sorted(one.prompt for one in parts.train + parts.evaluation) == sorted({one.prompt for one in lengths})
    assert parts == split(lengths[::-1], 0.25, seed)
    for source in "abc":
        num = len({one.prompt for one in lengths if one.source == source})
        assert sum(one.source == source for one in parts.evaluation) == round(0.25 * num)


def test_buckets_cover_the_limit() -> None:
    assert [num_buckets_for(512, granularity) for granularity in (100, 200, 400, 512, 513)] == [6, 3, 2, 2, 1]


@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_share(num: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, num)) / num
    low, high = wilson(share, num)
    assert 0 <= low <= share <= high <= 1


def test_wilson_of_a_half() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_counts_by_bucket_source_and_confidence() -> None:
    truth, predicted = [0, 1, 1, 2], [0, 1, 2, 2]
    assert accuracy(predicted, truth) == 0.75
    assert confusion(predicted, truth, 3) == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert by_source(predicted, truth, ["a", "a", "b", "b"]) == {
        "a": {"num_prompts": 2, "accuracy": 1.0},
        "b": {"num_prompts": 2, "accuracy": 0.5},
    }
    probabilities = np.array([[0.9, 0.1, 0.0], [0.05, 0.95, 0.0], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]])
    bins = calibration(probabilities, truth)
    assert [(one["low"], one["count"], one["accuracy"]) for one in bins] == [(0.6, 1, 0.0), (0.9, 3, 1.0)]
    assert bins[1]["confidence"] == pytest.approx(0.95)


def test_guesses_that_do_not_read_the_prompt() -> None:
    assert baselines.majority([0, 1, 1, 2, 2], 2) == [1, 1]
    assert baselines.majority_of_source([0, 0, 2, 2, 1], list("aabbc"), ["b", "a", "unseen"]) == [2, 0, 0]
    buckets = [0] * 20 + [1] * 20
    lengths = list(range(1, 21)) + list(range(100, 120))
    assert baselines.prompt_length_regression(buckets, lengths, [5, 110], 2) == [0, 1]
