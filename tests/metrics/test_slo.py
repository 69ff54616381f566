import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetribench.metrics.slo import Bounds, Slo

BOUND = st.none() | st.floats(1e-6, 1e6)
OWN = st.dictionaries(st.sampled_from(Bounds._fields), BOUND)


def test_a_class_has_its_own_bounds_and_for_the_rest_those_of_all() -> None:
    slo = Slo(ttft_s=2.0, tpot_s=0.1, classes={"interactive": {"ttft_s": 0.5}, "batch": {"ttft_s": None}, "x": {}})
    assert slo.bounds_of("interactive") == Bounds(0.5, 0.1)
    assert slo.bounds_of("batch") == Bounds(None, 0.1), "null is no bound, not the one for all"
    assert slo.bounds_of("x") == slo.bounds_of("default") == Bounds(2.0, 0.1)


@given(ttft_s=BOUND, tpot_s=BOUND, own=OWN)
def test_every_bound_is_the_classs_own_or_that_of_all(
    ttft_s: float | None, tpot_s: float | None, own: dict[str, float | None]
) -> None:
    slo = Slo(ttft_s=ttft_s, tpot_s=tpot_s, classes={"a": own})
    assert slo.bounds_of("a")._asdict() == {"ttft_s": ttft_s, "tpot_s": tpot_s} | own
    assert slo.bounds_of("b") == Bounds(ttft_s, tpot_s)


@pytest.mark.parametrize("bound_s", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", Bounds._fields)
def test_a_bound_must_be_a_time(name: str, bound_s: float) -> None:
    with pytest.raises(ValueError, match=rf"^slo\.{name}=.*: must be above 0 or null$"):
        Slo(**{name: bound_s})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"^slo\.classes\.batch\.{name}=.*: must be above 0 or null$"):
        Slo(classes={"batch": {name: bound_s}})


def test_an_unknown_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^slo\.classes\.batch\.itl_s: no such option; it has ttft_s, tpot_s$"):
        Slo(classes={"batch": {"itl_s": 1.0}})
