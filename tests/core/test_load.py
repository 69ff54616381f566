from dataclasses import replace

import pytest

from tests.support.builders import load
from tetribench.core.load import heavy_share
from tetribench.core.roles import Role


@pytest.mark.parametrize(("num_free_tokens", "expected"), [(1000, 0.0), (900, 0.1), (0, 1.0), (-500, 1.5)])
def test_memory_that_is_asked_for_counts_as_used(num_free_tokens: int, expected: float) -> None:
    assert load(num_free_tokens).used_share == expected


def test_idle_is_who_has_nothing_to_do_and_had_nothing_to_do() -> None:
    assert load().is_idle
    assert not any(replace(load(), **{name: 1}).is_idle for name in ("num_waiting", "num_running", "busy_share"))


@pytest.mark.parametrize(
    ("num_heavy", "num_light", "joins_heavy", "expected"), [(0, 0, True, 1.0), (1, 2, False, 0.25)]
)
def test_the_share_of_heavy_decodes_counts_the_one_that_joins(
    num_heavy: int, num_light: int, joins_heavy: bool, expected: float
) -> None:
    assert heavy_share(num_heavy, num_light, joins_heavy) == expected


def test_new_requests_go_to_who_prefills() -> None:
    assert [role for role in Role if role.takes_requests] == [Role.prefill, Role.colocated]
