from tests.support.builders import load
from tetribench.core.sequence import LengthRange
from tetribench.prefill.view import LoadView


def test_own_dispatches_count_until_the_next_broadcast() -> None:
    view = LoadView()
    broadcast = {"a": load(1000, num_heavy=1, num_light=2), "b": load(500)}
    view.update(broadcast)
    view.note_dispatch("a", 100, LengthRange(200, 400))
    assert view.loads == {"a": load(1000 - 100, num_heavy=2, num_light=2), "b": load(500)}
    view.note_dispatch("a", 100, LengthRange(0, 200))
    assert view.loads["a"] == load(800, num_heavy=2, num_light=3)
    view.update(broadcast)
    assert view.loads == broadcast


def test_a_correction_does_not_change_the_broadcast_itself() -> None:
    view, broadcast = LoadView(), {"a": load(1000)}
    view.update(broadcast)
    view.note_dispatch("a", 100, LengthRange(0, 200))
    assert broadcast == {"a": load(1000)}


def test_the_age_of_a_load_survives_a_correction() -> None:
    view = LoadView()
    view.update({"a": load(1000, time_s=3.5)})
    view.note_dispatch("a", 10, LengthRange(0, 200))
    assert view.loads["a"].time_s == 3.5


def test_what_is_forgotten_is_chosen_no_more_until_a_broadcast_names_it_again() -> None:
    view = LoadView()
    view.update({"a": load(), "b": load()})
    view.forget("a")
    view.forget("a")
    assert view.loads == {"b": load()}
    view.update({"a": load()})
    assert list(view.loads) == ["a"]
