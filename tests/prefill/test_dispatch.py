from collections import Counter
from typing import Any

import pytest

from tests.support.builders import load, request
from tetribench.core.load import InstanceLoad
from tetribench.core.seeds import generator
from tetribench.core.sequence import Estimate, LengthRange
from tetribench.prefill.dispatch import Choice, Dispatcher, Imbalance, PowerOfTwo, RandomDispatch
from tetribench.prefill.view import LoadView

LIGHT, HEAVY = LengthRange(0, 200), LengthRange(200, 400)
"""With a prompt of 10 tokens a light request needs 209 tokens, a heavy one 409, at the high end."""


def choose(dispatcher: Dispatcher, predicted: LengthRange = LIGHT, seed: int = 0, **loads: InstanceLoad) -> Choice:
    return dispatcher.choose(request(prompt=10), predicted, loads, generator(seed))


def test_alpha_is_those_that_can_hold_the_prompt_and_the_high_end() -> None:
    choice = choose(PowerOfTwo(), HEAVY, a=load(409), b=load(408), c=load(500, num_heavy=50))
    assert choice.candidates == ("a", "c")


@pytest.mark.parametrize(("estimate", "least"), [(Estimate.low, 210), (Estimate.mean, 310), (Estimate.high, 409)])
def test_the_point_of_the_range_that_alpha_believes(estimate: Estimate, least: int) -> None:
    dispatcher = PowerOfTwo(estimate=estimate)
    assert choose(dispatcher, HEAVY, a=load(least), b=load(least - 1)).candidates == ("a",)


def test_an_empty_alpha_falls_back_to_the_most_free_memory_and_then_the_name() -> None:
    assert choose(PowerOfTwo(), c=load(5), b=load(9), a=load(7)) == Choice("b", ("a", "b", "c"), num_fitting=0)
    assert choose(PowerOfTwo(), c=load(9), b=load(9)) == Choice("b", ("b", "c"), num_fitting=0)


def test_an_alpha_of_one_is_the_choice_however_heavy() -> None:
    assert choose(PowerOfTwo(), a=load(1000, num_heavy=99), b=load(0)) == Choice("a", ("a",), num_fitting=1)


def test_of_two_the_lower_share_of_heavy_decodes_wins() -> None:
    assert choose(PowerOfTwo(), a=load(num_heavy=2, num_light=2), b=load(num_heavy=3, num_light=9)).to == "b"


def test_the_share_is_counted_after_the_request_has_joined() -> None:
    """Before: a 0/0 and b 1/2. After a heavy one joins: a 1/1 and b 2/3; after a light one: a 0/1 and b 1/3."""
    loads: dict[str, Any] = {"a": load(), "b": load(num_heavy=1, num_light=1)}
    assert choose(PowerOfTwo(), HEAVY, **loads).to == "b"
    assert choose(PowerOfTwo(), LIGHT, **loads).to == "a"


def test_ties_go_to_more_free_memory_then_to_the_first_name() -> None:
    assert choose(PowerOfTwo(), a=load(500), b=load(600)).to == "b"
    assert choose(PowerOfTwo(), b=load(600), a=load(600)).to == "a"


def test_two_are_drawn_at_random_and_the_rest_is_not_looked_at() -> None:
    loads: dict[str, Any] = {name: load(num_heavy=index) for index, name in enumerate("abcd")}
    choices = [choose(PowerOfTwo(), seed=seed, **loads) for seed in range(300)]
    pairs = Counter(choice.candidates for choice in choices)
    assert len(pairs) == 6 and min(pairs.values()) > 25
    assert all(choice.to == min(choice.candidates) for choice in choices)


def test_the_number_of_choices() -> None:
    loads: dict[str, Any] = {name: load() for name in "abcd"}
    assert len(choose(PowerOfTwo(num_choices=3), **loads).candidates) == 3
    assert len(choose(PowerOfTwo(num_choices=9), **loads).candidates) == 4
    with pytest.raises(ValueError, match=r"prefill.dispatch.num_choices=0: must be at least 1"):
        PowerOfTwo(num_choices=0)


def test_random_takes_any_with_equal_chance_and_ignores_load() -> None:
    loads: dict[str, Any] = {"c": load(0), "b": load(1000), "a": load(0, num_heavy=9)}
    found = Counter(choose(RandomDispatch(), seed=seed, **loads).to for seed in range(600))
    assert set(found) == {"a", "b", "c"} and min(found.values()) > 150
    choice = choose(RandomDispatch(), **loads)
    assert (choice.candidates, choice.num_fitting) == (("a", "b", "c"), None)


def test_imbalance_sends_heavy_decodes_to_the_same_instances() -> None:
    loads: dict[str, Any] = {name: load() for name in "dcba"}
    heavy = {choose(Imbalance(num_heavy_instances=2), HEAVY, seed, **loads) for seed in range(50)}
    light = {choose(Imbalance(num_heavy_instances=2), LIGHT, seed, **loads) for seed in range(50)}
    assert {choice.to for choice in heavy} == {"a", "b"} and {choice.candidates for choice in heavy} == {("a", "b")}
    assert {choice.to for choice in light} == {"c", "d"}


def test_imbalance_without_others_for_light_decodes() -> None:
    assert choose(Imbalance(num_heavy_instances=3), LIGHT, a=load()).to == "a"
    with pytest.raises(ValueError, match=r"prefill.dispatch.num_heavy_instances=0: must be at least 1"):
        Imbalance(num_heavy_instances=0)


def test_an_overload_is_spread_between_two_broadcasts() -> None:
    """Nobody has room, and what was dispatched since the broadcast is all that tells the instances apart."""
    view = LoadView()
    view.update({name: load(100) for name in "abc"})
    to = []
    for id in range(30):
        one = request(id, prompt=10)
        choice = PowerOfTwo().choose(one, HEAVY, view.loads, generator(id))
        view.note_dispatch(choice.to, one.num_prompt_tokens, HEAVY)
        to.append(choice.to)
    assert Counter(to) == {"a": 10, "b": 10, "c": 10}
