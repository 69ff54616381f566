import pytest

from tetribench.metrics.limits import Limits


@pytest.mark.parametrize("name", ["client_share", "late_share", "failed_share", "other_share"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_are_between_0_and_1(name: str, share: float) -> None:
    with pytest.raises(ValueError, match=rf"^validity\.{name}=.*: must be between 0 and 1$"):
        Limits(**{name: share})


@pytest.mark.parametrize("name", ["late_s", "min_ttft_s"])
@pytest.mark.parametrize("seconds", [-1e-9, float("nan")])
def test_seconds_are_not_negative(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"^validity\.{name}=.*: must be at least 0$"):
        Limits(**{name: seconds})


@pytest.mark.parametrize("seconds", [0.0, 0.9, 61.0, float("nan")])
def test_a_calibration_takes_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^validity\.calibration_s=.*: must be between 1 and 60, or null for none$"):
        Limits(calibration_s=seconds)


def test_some_can_be_without_a_limit() -> None:
    assert Limits(calibration_s=None, late_share=None, other_share=None) != Limits()
