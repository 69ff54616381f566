"""What is asked of the driver, with a stand-in for it: both sides have multiprocessors, and none has the other's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.hf.green.driver import FakeDriver
from tetribench.engine.hf.green.contexts import divide
from tetribench.engine.hf.green.split import first_part


@given(st.integers(16, 300), st.floats(0.1, 0.9))
def test_the_two_have_all_multiprocessors_and_none_in_common(number: int, share: float) -> None:
    try:
        num_first = first_part(number, share)
    except ValueError:
        return
    driver = FakeDriver(number)
    contexts = divide(driver, 0, num_first)
    first, second = driver.contexts
    assert [context.num_multiprocessors for context in contexts] == [num_first, number - num_first]
    assert sorted(first + second) == list(range(number))


def test_streams_are_of_their_own_context() -> None:
    driver = FakeDriver(132)
    first, second = divide(driver, 1, 96)
    handles = [context.new_stream() for context in (second, first, second)]
    assert [driver.streams[handle] for handle in handles] == [1, 0, 1]
    assert len(set(handles)) == 3


def test_a_context_says_what_the_driver_gave_it_and_not_what_was_asked_for() -> None:
    first, second = divide(FakeDriver(108, granularity=32), 0, 40)
    assert (first.num_multiprocessors, second.num_multiprocessors) == (64, 44)


def test_a_driver_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^system.tetri.sharing=green_contexts: .*does not divide 16 .* at 8; must be"
    ):
        divide(FakeDriver(16, granularity=16), 0, 8)


@pytest.mark.parametrize(
    "function",
    [
        "cuDeviceGet",
        "cuDeviceGetDevResource",
        "cuDevSmResourceSplitByCount",
        "cuDevResourceGenerateDesc",
        "cuGreenCtxCreate",
    ],
)
def test_what_the_driver_refuses_is_told_in_one_line(function: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{function} answers CUDA_ERROR_NOT_SUPPORTED; must be none, time"
    ) as refused:
        divide(FakeDriver(132, refuses=function), 0, 64)
    assert "\n" not in str(refused.value)


def test_a_driver_that_is_too_old_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise RuntimeError('Function "cuGreenCtxCreate" not found')

    driver = FakeDriver(132)
    monkeypatch.setattr(driver, "cuGreenCtxCreate", missing)
    with pytest.raises(ValueError, match=r"green_contexts: Function .* not found; must be none, time_slicing or mps$"):
        divide(driver, 0, 64)
