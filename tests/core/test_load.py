from dataclasses import replace

import pytest

from tests.support import load
from tetribench.core.roles import Role


@pytest.mark.parametrize(("num_free_tokens", "expected"), [(1000, 0.0), (900, 0.1), (0, 1.0), (-500, 1.5)])
def test_memory_that_is_asked_for_counts_as_used(num_free_tokens: int, expected: float) -> None:
    assert load(num_free_tokens).used_share == expected


def test_idle_is_who_has_nothing_to_do_and_had_nothing_to_do() -> None:
    assert load().is_idle
    assert not any(replace(load(), **{name: 1}).is_idle for name in ("num_waiting", "num_running", "busy_share"))


def test_new_requests_go_to_who_prefills() -> None:
    assert [role for role in Role if role.takes_requests] == [Role.prefill, Role.colocated]
