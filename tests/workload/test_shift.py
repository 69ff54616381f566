import pytest

from tetribench.core.request import HEAVY_DECODE_TOKENS, HEAVY_PREFILL_TOKENS
from tetribench.workload.arrivals import AtOnce, Poisson
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.lengths import LengthClass
from tetribench.workload.shift import ShiftWorkload


def shift(shift_s: float = 10.0) -> ShiftWorkload:
    before = ClassWorkload(name="a", arrivals=Poisson(), prompt=LengthClass.heavy, num_requests=30, request_rate=2.0)
    after = ClassWorkload(name="b", arrivals=AtOnce(), output=LengthClass.heavy, num_requests=7)
    return ShiftWorkload(name="shift", before=before, after=after, shift_s=shift_s)


def test_the_second_half_begins_at_its_time_whatever_is_left_of_the_first() -> None:
    requests = shift().draw(0).requests
    assert [one.id for one in requests] == list(range(37))
    assert [one.arrival_s for one in requests] == sorted(one.arrival_s for one in requests)
    at_once = [one for one in requests if one.arrival_s == 10.0]
    assert len(at_once) == 7 and all(one.max_output_tokens > HEAVY_DECODE_TOKENS for one in at_once)
    others = [one for one in requests if one.arrival_s != 10.0]
    assert others[-1].arrival_s > 10.0 and all(one.num_prompt_tokens > HEAVY_PREFILL_TOKENS for one in others)


def test_the_halves_are_drawn_from_different_seeds() -> None:
    half = ClassWorkload(name="a", arrivals=AtOnce(), num_requests=20)
    requests = ShiftWorkload(name="twice", before=half, after=half, shift_s=1.0).draw(3).requests
    before, after = requests[:20], requests[20:]
    assert [one.num_prompt_tokens for one in before] != [one.num_prompt_tokens for one in after]


def test_each_half_keeps_its_sla_class() -> None:
    before = ClassWorkload(name="a", arrivals=AtOnce(), num_requests=3)
    after = ClassWorkload(name="b", arrivals=AtOnce(), num_requests=2, sla_class="batch")
    requests = ShiftWorkload(name="both", before=before, after=after, shift_s=1.0).draw(0).requests
    assert [one.sla_class for one in requests] == ["default"] * 3 + ["batch"] * 2


def test_a_shift_at_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"workload\.shift_s"):
        shift(0.0)
