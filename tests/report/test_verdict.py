from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tetribench.metrics.paired import Compared, Outcome, Ratio
from tetribench.report.quantities import TIMES
from tetribench.report.runs import Run, load_run
from tetribench.report.verdict import verdict_sentences

MakeRun = Callable[..., Path]


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    return load_run(make_run(num_repeats=2, num_requests=24))


def saying(run: Run, ratios: dict[str, Ratio]) -> list[str]:
    """The sentences, had the headlines these ratios; all others are 1 and undecided."""
    undecided = Ratio(1.0, 0.9, 1.1, 0.9, 0.02, 0.12, Outcome.UNDECIDED)
    rows = [
        replace(row, ratios={"tetri": ratios.get(row.headline.name, undecided)} if row.headline.has_ratio else {})
        for row in run.compared
    ]
    return verdict_sentences(replace(run, compared=rows))


def test_what_is_worse_names_what_is_better(run: Run) -> None:
    worse = Ratio(1.26, 1.2, 1.33, 0.001, 0.03, 0.05, Outcome.WORSE)
    better = Ratio(0.5, 0.4, 0.6, 0.001, 0.03, 0.05, Outcome.BETTER)
    assert saying(run, {"mean_jct_s": worse, "mean_tpot_s": better}) == [
        f"tetri (split) is worse than vllm_like (colocated): Mean JCT 1.26{TIMES} [1.20, 1.33] over 2 repeats; the "
        f"same system against itself: within 3.0%. But better: Mean TPOT 0.500{TIMES} [0.40, 0.60]."
    ]


def test_what_is_equivalent_says_the_margin(run: Run) -> None:
    equal = Ratio(1.01, 0.99, 1.03, 0.5, nan, 0.05, Outcome.EQUIVALENT)
    assert saying(run, {"mean_jct_s": equal}) == [
        f"tetri (split) is equivalent to vllm_like (colocated): Mean JCT 1.01{TIMES} [0.99, 1.03] over 2 repeats, all "
        "within the margin of 5%."
    ]


@pytest.mark.parametrize(
    ("ratio", "why"),
    [
        (Ratio(1.05, 0.9, 1.2, 0.4, nan, 0.3, Outcome.UNDECIDED), "would have found a change of 30% or more"),
        (Ratio(1.02, 0.9, 1.2, 0.4, 0.04, 0.3, Outcome.UNDECIDED), "no further from 1 than the same system against it"),
    ],
)
def test_what_is_undecided_says_why(run: Run, ratio: Ratio, why: str) -> None:
    (said,) = saying(run, {"mean_jct_s": ratio})
    assert said.startswith("Undecided, tetri (split) against vllm_like (colocated): Mean JCT 1.0") and why in said


def test_one_repeat_has_no_verdict(make_run: MakeRun) -> None:
    (said,) = verdict_sentences(load_run(make_run()))
    assert said.startswith("No verdict on tetri (split) and vllm_like (colocated): Mean JCT ") and "repeats=5" in said


def test_the_metric_of_the_verdict_can_be_chosen(make_run: MakeRun) -> None:
    run = load_run(make_run(num_repeats=2, verdict={"metric": "mean_ttft_s", "margin": 0.1}))
    assert "Mean TTFT " in verdict_sentences(run)[0]


def test_what_other_requests_were_sent_to_is_refused(make_run: MakeRun) -> None:
    """The second system of the second repeat served those of the first."""
    path = make_run(num_repeats=2)
    facts = msgspec.json.decode((path / "run.json").read_bytes())
    source, target = (path / facts["repeats"][repeat]["slots"][1]["folder"] for repeat in (0, 1))
    (target / "events.jsonl").write_bytes((source / "events.jsonl").read_bytes())
    with pytest.raises(
        ValueError, match=r"1-tetri: request 0 is not the one in requests.jsonl of its repeat; incomparable"
    ):
        load_run(path)


def test_every_serving_is_in_the_table_of_requests_and_lean_but_the_first(run: Run) -> None:
    assert [(one.repeat, one.slot, one.result.system) for one in run.served] == [
        (0, 0, "vllm_like"),
        (0, 1, "tetri"),
        (1, 0, "vllm_like"),
        (1, 1, "tetri"),
    ]
    assert [len(one.result.iterations) > 0 for one in run.served] == [True, True, False, False]
    assert run.num_repeats == 2 and len({len(one.result.requests) for one in run.served}) == 1


def test_values_are_means_over_the_repeats(run: Run) -> None:
    row: Compared = next(one for one in run.compared if one.headline.name == "mean_jct_s")
    own: list[Any] = [
        one.result.summary["metrics"]["overall"]["jct_s"]["mean"] for one in run.served if one.result.system == "tetri"
    ]
    assert row.values["tetri"] == pytest.approx(sum(own) / 2)
