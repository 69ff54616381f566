import pytest

from tetribench.control.churn import Action, Step, parse_churn
from tetribench.core.roles import Role

TWO = {Role.prefill: 1, Role.decode: 1}


def parse(*texts: str) -> list[Step]:
    return parse_churn("churn", list(texts), TWO)


def test_every_action_can_be_asked_for() -> None:
    assert parse("0 kill decode-0", "1.5 remove prefill-0", "2 add decode", "3e0 flip decode-1") == [
        Step(0.0, Action.kill, "decode-0"),
        Step(1.5, Action.remove, "prefill-0"),
        Step(2.0, Action.add, "decode"),
        Step(3.0, Action.flip, "decode-1"),
    ]


def test_steps_come_in_the_order_of_time_and_of_writing_where_that_is_the_same() -> None:
    found = parse("2 flip decode-0", "1 kill decode-0", "1 flip prefill-0")
    assert [(step.at_s, step.target) for step in found] == [(1.0, "decode-0"), (1.0, "prefill-0"), (2.0, "decode-0")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kill decode-0",
        "1 kill",
        "1 kill decode-0 now",
        "soon kill decode-0",
        "-1 kill decode-0",
        "nan kill decode-0",
        "inf kill decode-0",
        "1 break decode-0",
        "1 add decode-1",
    ],
)
def test_a_step_that_cannot_be_read_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^churn='.*': must be SECONDS ACTION TARGET, .*kill, remove, add, flip.*$"):
        parse(text)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1 kill decode-1"], r"^churn: kill decode-1: must be one of prefill-0, decode-0$"),
        (["1 kill decode-1", "2 add decode"], r"^churn: kill decode-1: must be one of prefill-0, decode-0$"),
        (["1 add colocated"], r"^churn: add colocated: must be one of prefill, decode$"),
    ],
)
def test_a_step_on_an_instance_that_will_not_be_there_is_refused_in_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(*texts)
