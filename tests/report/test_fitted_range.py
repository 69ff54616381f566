"""A simulated run says what of it lies outside the iterations that its cost model was fitted on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tetribench.report.wording import cautions
from tetribench.report.write import write_report


def said(path: Path, fitted: dict[str, int]) -> list[str]:
    """The cautions about the range, of a run whose engines were fitted so."""
    for manifest in path.glob("repeats/*/*/manifest.json"):
        document = json.loads(manifest.read_text())
        for facts in document["instances"].values():
            facts["fitted"] = fitted
        manifest.write_text(json.dumps(document))
    return [one for one in cautions(write_report(path)) if "fitted" in one]


def test_a_run_inside_of_the_range_says_nothing(make_run: Callable[..., Path]) -> None:
    assert said(make_run(), {}) == []
    assert said(make_run("other"), {"prefill_tokens": 10**6, "sequences": 10**6, "context_tokens": 10**6}) == []


@pytest.mark.parametrize(
    ("fitted", "words"),
    [
        ({"prefill_tokens": 100}, "prefill tokens, and the cost model was fitted on at most 100; "),
        ({"sequences": 1}, "sequences, and the cost model was fitted on at most 1; "),
        ({"context_tokens": 50}, "grow longer than the contexts that the cost model was fitted on, 50 tokens; "),
    ],
)
def test_what_is_outside_is_said_of_each_system(
    fitted: dict[str, int], words: str, make_run: Callable[..., Path]
) -> None:
    found = said(make_run(), fitted)
    assert {one.partition(":")[0] for one in found} == {"tetri", "vllm_like"} and len(found) == 2
    assert all(words in one and "%" in one and "extrapolated" in one for one in found)
