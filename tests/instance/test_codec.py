import msgspec
import pytest

from tests.support import load, request
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import (
    Arrived,
    Broken,
    Granted,
    LoadBroadcast,
    LoadReport,
    Message,
    Peers,
    Progress,
    Ready,
    Released,
    Reserve,
    Stop,
    Submit,
    TokenOutput,
)
from tetribench.core.sequence import LengthRange
from tetribench.instance.codec import _DECODERS, decode, encode

EVENT = Event(1.5, EventKind.ITERATION, "decode-0", (1, 2), {"started_s": 1.25, "num_used_blocks": 3, "to": "x"})
MESSAGES: list[Message] = [
    Submit(request(7, 3, prompt_ids=(5, 6, 7), label="LPLD", natural_stop=True)),
    Reserve(request(7), LengthRange(200, 400), "prefill-0"),
    Granted(7, [4, 2]),
    Arrived(7, 99),
    Released(7),
    Progress("decode-0", [TokenOutput(7, 99, is_last=True)], [EVENT]),
    LoadReport("decode-0", load(5, num_heavy=2)),
    LoadBroadcast({"decode-1": load(1), "decode-0": load(2)}),
    Ready("decode-0", {"num_blocks": 10, "device": "cpu", "versions": {"python": "3"}}, b"\x00\xff"),
    Peers({"decode-0": b"\x01"}),
    Broken("decode-0", "KeyError: 3"),
    Stop(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    found = decode(*encode(message))
    assert found == message and type(found) is type(message)


def test_every_kind_of_message_is_covered() -> None:
    assert {type(message).__name__.encode() for message in MESSAGES} == _DECODERS.keys()


def test_types_that_python_cares_about_survive() -> None:
    submitted = decode(*encode(MESSAGES[0]))
    assert isinstance(submitted, Submit) and hash(submitted.request) == hash(MESSAGES[0].request)  # type: ignore[union-attr]
    progress = decode(*encode(MESSAGES[5]))
    assert isinstance(progress, Progress) and progress.events[0].kind is EventKind.ITERATION
    broadcast = decode(*encode(MESSAGES[7]))
    assert isinstance(broadcast, LoadBroadcast) and list(broadcast.loads) == ["decode-1", "decode-0"]


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(KeyError):
        decode(b"Nonsense", b"")
    with pytest.raises(msgspec.ValidationError):
        decode(b"Granted", encode(MESSAGES[0])[1])
