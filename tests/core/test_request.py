import pytest

from tests.support.builders import request
from tetribench.core.request import class_of


@pytest.mark.parametrize(
    ("num_prompt_tokens", "num_output_tokens", "expected"),
    [(512, 128, "LPLD"), (513, 128, "HPLD"), (512, 129, "LPHD"), (513, 129, "HPHD")],
)
def test_heavy_begins_above_the_papers_thresholds(
    num_prompt_tokens: int, num_output_tokens: int, expected: str
) -> None:
    assert class_of(num_prompt_tokens, num_output_tokens) == expected


def test_tokens_in_all() -> None:
    assert request(prompt=30, output=12).num_tokens == 42
