import msgspec
import pytest

from tests.support.builders import load, request
from tetribench.core.events import Event, EventKind
from tetribench.core.messages import (
    Arrived,
    Broken,
    Close,
    Closed,
    Drain,
    Drained,
    Ended,
    Granted,
    LoadBroadcast,
    LoadReport,
    Lost,
    Message,
    Orphaned,
    Peers,
    Progress,
    Ready,
    Released,
    Reserve,
    Stop,
    Submit,
    TokenOutput,
)
from tetribench.core.roles import Role
from tetribench.core.sequence import LengthRange
from tetribench.instance.codec import _DECODERS, decode, encode

EVENT = Event(1.5, EventKind.ITERATION, "decode-0", (1, 2), {"started_s": 1.25, "num_used_blocks": 3, "to": "x"})
MESSAGES: list[Message] = [
    Submit(request(7, 3, prompt_ids=(5, 6, 7), label="LPLD", natural_stop=True), 2, [8, 9]),
    Reserve("prefill-0", 4, request(7), 2, [8, 9], LengthRange(200, 400)),
    Granted(7, [4, 2]),
    Arrived("prefill-0", 4, 99),
    Released("prefill-0", 4),
    Lost("decode-1", {7: 2}),
    Orphaned("prefill-0", {7: 1}),
    Close("decode-0"),
    Closed("prefill-0"),
    Drain(Role.decode, ["prefill-0"]),
    Drained("decode-0", None, 1.5, 2.5),
    Progress("decode-0", [TokenOutput(7, 2, 3, 99, is_last=True)], [EVENT]),
    Ended("prefill-0", 7, 2, "HTTP 429: too many"),
    LoadReport("decode-0", load(5, num_heavy=2)),
    LoadBroadcast({"decode-1": load(1), "decode-0": load(2)}),
    Ready("decode-0", {"num_blocks": 10, "device": "cpu", "versions": {"python": "3"}}, b"\x00\xff"),
    Peers({"decode-0": b"\x01"}),
    Broken("decode-0", "KeyError: 3"),
    Stop(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    found = decode(encode(message))
    assert found == message and type(found) is type(message)


def test_every_kind_of_message_is_covered() -> None:
    assert {type(message).__name__.encode() for message in MESSAGES} == _DECODERS.keys()


def test_types_that_python_cares_about_survive() -> None:
    submitted = decode(encode(MESSAGES[0]))
    assert isinstance(submitted, Submit) and hash(submitted.request) == hash(MESSAGES[0].request)  # type: ignore[union-attr]
    progress = decode(encode(Progress("decode-0", [], [EVENT])))
    assert isinstance(progress, Progress) and progress.events[0].kind is EventKind.ITERATION
    broadcast = decode(encode(LoadBroadcast({"decode-1": load(1), "decode-0": load(2)})))
    assert isinstance(broadcast, LoadBroadcast) and list(broadcast.loads) == ["decode-1", "decode-0"]
    drain = decode(encode(Drain(Role.decode)))
    assert isinstance(drain, Drain) and drain.to is Role.decode
    lost = decode(encode(Lost("decode-0", {7: 2})))
    assert isinstance(lost, Lost) and lost.restarted[7] == 2


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(KeyError):
        decode(b"Nonsense\n")
    with pytest.raises(msgspec.ValidationError):
        decode(b"Granted\n" + encode(MESSAGES[0]).partition(b"\n")[2])
