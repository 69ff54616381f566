from collections.abc import Sequence as SequenceOf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import info, request
from tests.support.engine import STOP_TOKEN
from tetribench.core.events import EventKind
from tetribench.core.messages import Arrived, Granted, Lost, Released, Reserve, Stop, TokenOutput
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.decode.admit import Admission, Greedy, KVView
from tetribench.decode.scheduler import DecodePolicies, DecodeScheduler
from tetribench.engine.base import Batch
from tetribench.kv.transfer import Moved, Push

LIGHT, HEAVY = LengthRange(0, 200), LengthRange(200, 400)


class Recording:
    """Admits as told, and remembers what it was asked."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.times = 1
        """How often it says no, where it is asked for that."""
        self.asked: list[tuple[int, list[int], KVView]] = []

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        self.asked.append((candidate.request.id, [member.request.id for member in members], kv))
        return self.answer

    def num_refusals(
        self, candidate: Sequence, running: SequenceOf[Sequence], receiving: SequenceOf[Sequence], kv: KVView
    ) -> int:
        return self.times


def scheduler(
    num_blocks: int = 100, admit: Admission | None = None, max_num_seqs: int = 256, recompute_chunk_size: int = 512
) -> DecodeScheduler:
    """Blocks of 4 tokens."""
    policies = DecodePolicies(
        admit=admit or Greedy(), max_num_seqs=max_num_seqs, recompute_chunk_size=recompute_chunk_size
    )
    return policies.build("decode-0", info(num_blocks, 4, (STOP_TOKEN,)))


def reserve(
    made: DecodeScheduler,
    id: int,
    prompt: int = 4,
    output: int = 100,
    now_s: float = 1.0,
    predicted: LengthRange = LIGHT,
) -> None:
    made.receive(Reserve("prefill-0", id, request(id, prompt, output), 1, [], predicted), now_s)


def arrive(
    made: DecodeScheduler,
    *ids: int,
    prompt: int = 4,
    output: int = 100,
    now_s: float = 1.0,
    predicted: LengthRange = LIGHT,
) -> None:
    for id in ids:
        reserve(made, id, prompt, output, now_s, predicted)
        made.receive(Arrived("prefill-0", id, 70 + id), now_s)


def step(made: DecodeScheduler, now_s: float = 2.0, **token_ids: int) -> Batch:
    batch = made.next_batch(now_s)
    assert batch is not None
    ids = [chunk.sequence.request.id for chunk in batch.prefill if chunk.yields_token]
    ids += [one.request.id for one in batch.decode]
    made.complete(batch, {id: token_ids.get(f"r{id}", 0) for id in ids}, now_s)
    return batch


def granted(made: DecodeScheduler) -> list[int]:
    found = [message.ticket for _, message in made.outbox.messages if isinstance(message, Granted)]
    made.outbox.messages.clear()
    return found


def events(made: DecodeScheduler, kind: EventKind) -> list[int]:
    return [event.requests[0] for event in made.outbox.events if event.kind is kind]


def test_a_request_asks_gets_room_arrives_and_decodes() -> None:
    made = scheduler()
    reserve(made, 3, prompt=9, output=3)
    ((to, message),) = made.outbox.messages
    assert to == "prefill-0" and isinstance(message, Granted) and len(message.block_ids) == 3
    (reserved,) = made.outbox.events
    assert (reserved.kind, reserved.time_s, reserved.details) == (EventKind.RESERVED, 1.0, {"num_blocks": 3})
    assert made.num_used_blocks == 3 and made.next_batch(1.5) is None

    made.receive(Arrived("prefill-0", 3, 71), 2.0)
    assert events(made, EventKind.ADMITTED) == [3] and made.outbox.outputs == []
    (one,) = step(made, r3=72).decode
    assert one.num_computed == 10 and one.output_ids == [71, 72]
    step(made, r3=73)
    assert made.outbox.outputs == [TokenOutput(3, 1, 1, 72, False), TokenOutput(3, 1, 2, 73, True)]
    assert made.next_batch(3.0) is None
    made.check()


def test_blocks_that_are_granted_are_a_copy() -> None:
    """The receiver of the message must not see the sequence grow."""
    made = scheduler()
    arrive(made, 0, prompt=4)
    (message,) = [message for _, message in made.outbox.messages if isinstance(message, Granted)]
    step(made)
    assert len(message.block_ids) == 1


def test_who_asks_first_gets_room_first_and_nobody_overtakes() -> None:
    made = scheduler(num_blocks=3)
    reserve(made, 0, prompt=4)
    reserve(made, 1, prompt=12)
    reserve(made, 2, prompt=4)
    assert granted(made) == [0]
    made.receive(Released("prefill-0", 0), 2.0)
    assert granted(made) == [1]
    made.receive(Released("prefill-0", 1), 3.0)
    assert granted(made) == [2]


def test_the_policy_is_asked_with_everyone_that_holds_memory() -> None:
    policy = Recording(answer=True)
    made = scheduler(num_blocks=10, admit=policy)
    arrive(made, 0)
    reserve(made, 1)
    reserve(made, 2, prompt=8)
    assert granted(made) == [0, 1, 2]
    assert policy.asked == [(1, [0], KVView(4, 36)), (2, [0, 1], KVView(4, 32))]


def test_a_lone_request_is_admitted_without_asking_the_policy() -> None:
    made = scheduler(admit=Recording(answer=False))
    reserve(made, 0)
    reserve(made, 1)
    assert granted(made) == [0]
    made.receive(Released("prefill-0", 0), 2.0)
    assert granted(made) == [1]


def test_a_request_that_is_held_back_gets_room_when_another_ends() -> None:
    made = scheduler(admit=Recording(answer=False))
    arrive(made, 0, output=2)
    reserve(made, 1)
    granted(made)
    step(made)
    assert granted(made) == [1]


def test_a_share_of_the_blocks_is_kept_free_except_for_a_lone_request() -> None:
    made = DecodePolicies(admit=Greedy(), watermark=0.5).build("decode-0", info(4, 4))
    reserve(made, 0, prompt=12)
    reserve(made, 1, prompt=4)
    assert granted(made) == [0]
    made.receive(Released("prefill-0", 0), 2.0)
    assert granted(made) == [1]
    reserve(made, 2, prompt=4)
    reserve(made, 3, prompt=4)
    assert granted(made) == [2] and made.num_used_blocks == 2


def test_seats_are_bounded_and_those_that_are_on_their_way_take_one() -> None:
    made = scheduler(max_num_seqs=2)
    arrive(made, 0, output=3)
    reserve(made, 1)
    reserve(made, 2)
    assert granted(made) == [0, 1]
    step(made)
    assert granted(made) == []
    step(made)
    assert granted(made) == [2]


def test_room_that_was_granted_or_asked_for_in_vain_comes_back() -> None:
    made = scheduler(num_blocks=1)
    reserve(made, 0)
    reserve(made, 1)
    reserve(made, 2)
    made.receive(Released("prefill-0", 1), 2.0)
    assert granted(made) == [0]
    made.receive(Released("prefill-0", 0), 3.0)
    assert granted(made) == [2]
    made.receive(Released("prefill-0", 2), 4.0)
    made.check()


def full() -> DecodeScheduler:
    """Two members with 4 + 1 tokens in 4 blocks: after 3 more tokens each needs a third block and there is none."""
    made = scheduler(num_blocks=4, recompute_chunk_size=5)
    arrive(made, 0, 1, output=10)
    for _ in range(4):
        step(made)
    return made


def test_when_memory_runs_out_the_last_admitted_is_preempted() -> None:
    made = full()
    assert made.num_used_blocks == 4
    batch = step(made, 9.0)
    assert [one.request.id for one in batch.decode] == [0]
    (event,) = [event for event in made.outbox.events if event.kind is EventKind.PREEMPTED]
    assert (event.requests, event.time_s) == ((1,), 9.0)
    assert event.details == {"how": "recompute", "num_tokens": 4 + 5, "num_bytes": 0}


def test_a_preempted_request_comes_before_all_that_ask() -> None:
    made = full()
    reserve(made, 2)
    step(made)
    assert granted(made) == [0, 1]
    for _ in range(4):
        assert step(made).decode
    assert granted(made) == []
    assert step(made).prefill[0].sequence.request.id == 1
    assert granted(made) == [2]


def test_a_preempted_request_is_recomputed_in_chunks_and_its_next_token_is_the_right_one() -> None:
    made = full()
    made.outbox.outputs.clear()
    while made.next_batch(3.0) is not None:
        batch = step(made, r0=5, r1=6)
        if batch.prefill:
            break
    chunks = [(chunk.start, chunk.num_tokens) for chunk in batch.prefill]
    batch = step(made, 7.0, r1=6)
    chunks += [(chunk.start, chunk.num_tokens) for chunk in batch.prefill]
    assert chunks == [(0, 5), (5, 4)]
    sequence = batch.prefill[0].sequence
    assert len(sequence.output_ids) == 6 and sequence.output_ids[-1] == 6 and sequence.num_uncomputed == 1
    assert made.outbox.outputs[-1] == TokenOutput(1, 1, 5, 6, False)
    assert events(made, EventKind.ADMITTED) == [0, 1, 1]
    while made.next_batch(8.0) is not None:
        step(made)
    assert [output.is_last for output in made.outbox.outputs if output.request_id == 1] == [False] * 4 + [True]
    made.check()


def test_recomputation_may_yield_the_last_token() -> None:
    made = scheduler(num_blocks=4)
    arrive(made, 0, output=10)
    arrive(made, 1, output=6, predicted=HEAVY)
    while made.next_batch(3.0) is not None:
        step(made)
    assert events(made, EventKind.PREEMPTED) == [1]
    assert made.outbox.outputs[-1] == TokenOutput(1, 1, 5, 0, True)
    assert [output.request_id for output in made.outbox.outputs].count(1) == 5
    made.check()


def test_several_preempted_requests_come_back_in_the_order_of_their_admission() -> None:
    made = scheduler(num_blocks=6)
    arrive(made, 0, 1, 2, output=20)
    while made.next_batch(3.0) is not None:
        step(made)
    assert events(made, EventKind.PREEMPTED)[:2] == [2, 1]
    assert events(made, EventKind.ADMITTED)[:5] == [0, 1, 2, 1, 2]
    made.check()


def ended_beside_a_preempted_one(policy: Recording) -> DecodeScheduler:
    """Three members fill 6 blocks; 2 is preempted, and when 0 ends it fits again beside 1."""
    made = scheduler(num_blocks=6, admit=policy)
    arrive(made, 0, output=6)
    arrive(made, 1, 2, output=12)
    while not any(output.is_last for output in made.outbox.outputs):
        step(made)
    assert events(made, EventKind.PREEMPTED) == [2]
    policy.asked.clear()
    return made


def test_a_preempted_request_needs_the_policys_consent_too() -> None:
    policy = Recording(answer=True)
    made = ended_beside_a_preempted_one(policy)
    policy.answer = False
    assert [one.request.id for one in step(made).decode] == [1]
    assert [(id, members) for id, members, _ in policy.asked] == [(2, [1])]
    while made.num_used_blocks:
        assert step(made).decode
    assert step(made).prefill


def test_a_preempted_request_comes_back_as_soon_as_it_may() -> None:
    (chunk,) = step(ended_beside_a_preempted_one(Recording(answer=True))).prefill
    assert chunk.sequence.request.id == 2


def test_a_natural_stop_ends_a_response_and_a_stop_token_does_not_end_a_forced_one() -> None:
    made = scheduler()
    for id, natural_stop in enumerate((True, False)):
        made.receive(Reserve("prefill-0", id, request(id, 4, 10, natural_stop=natural_stop), 1, [], LIGHT), 1.0)
        made.receive(Arrived("prefill-0", id, 70), 1.0)
    step(made, r0=STOP_TOKEN, r1=STOP_TOKEN)
    assert [output.is_last for output in made.outbox.outputs] == [True, False]


def test_load_counts_what_is_promised_and_sorts_by_predicted_length() -> None:
    made = scheduler(num_blocks=5, admit=Recording(answer=False))
    arrive(made, 0, prompt=7)
    made.receive(Reserve("prefill-0", 1, request(1, 6), 1, [], HEAVY), 1.0)
    found = made.load(3.0)
    assert (found.time_s, found.num_total_tokens, found.num_free_tokens) == (3.0, 20, 12 - 6)
    assert (found.num_waiting, found.num_running, found.num_heavy, found.num_light) == (1, 1, 1, 1)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.booleans(), st.integers(1, 12), st.integers(2, 16)),
            st.sampled_from(["arrive", "step", "release", "lose"]),
        ),
        max_size=40,
    )
)
def test_load_counts_every_request_until_it_ends_or_is_dropped(steps: list[tuple[bool, int, int] | str]) -> None:
    """On memory so small that most wait, and some are preempted and recomputed."""
    made = scheduler(num_blocks=7)
    is_heavy: dict[int, bool] = {}
    asking: dict[int, bool] = {}
    """By ticket, whether it has memory: those whose KV is not there."""
    for number, asked in enumerate(steps):
        if isinstance(asked, tuple):
            heavy, prompt, output = asked
            is_heavy[number], asking[number] = heavy, False
            wanted = request(number, prompt, output)
            made.receive(Reserve("prefill-0", number, wanted, 1, [], HEAVY if heavy else LIGHT), 1.0)
        elif asked == "step" and made.next_batch(2.0) is not None:
            step(made)
        elif asked == "lose":
            made.receive(Lost("prefill-0"), 1.0)
            for ticket in asking:
                del is_heavy[ticket]
            asking.clear()
        elif asked == "release" and asking:
            ticket = next(iter(asking))
            made.receive(Released("prefill-0", ticket), 1.0)
            del is_heavy[ticket], asking[ticket]
        elif asked == "arrive" and any(asking.values()):
            ticket = next(ticket for ticket, has_memory in asking.items() if has_memory)
            del asking[ticket]
            made.receive(Arrived("prefill-0", ticket, 70), 1.0)
        asking.update((ticket, True) for ticket in granted(made) if ticket in asking)
        for produced in made.outbox.outputs:
            if produced.is_last:
                del is_heavy[produced.request_id]
        made.outbox.outputs.clear()
        found = made.load(3.0)
        assert (found.num_heavy, found.num_light) == (sum(is_heavy.values()), len(is_heavy) - sum(is_heavy.values()))


def test_load_counts_the_preempted_with_all_that_they_must_recompute() -> None:
    made = full()
    step(made)
    found = made.load(3.0)
    assert (found.num_waiting, found.num_running, found.num_light) == (1, 1, 2)
    assert made.num_used_blocks == 3


def test_what_a_decode_instance_never_gets() -> None:
    made = scheduler()
    with pytest.raises(AssertionError, match="a decode instance got"):
        made.receive(Stop(), 0.0)
    with pytest.raises(AssertionError, match="pushes nothing"):
        made.moved(Moved(Push(0, 0, "x", [], [], True), 0.0, 1.0, 0))


def test_an_idle_instance_that_forgot_a_request_is_found() -> None:
    running = scheduler()
    arrive(running, 0)
    with pytest.raises(AssertionError):
        running.check()
    asking = scheduler(num_blocks=1)
    reserve(asking, 0, prompt=8)
    with pytest.raises(AssertionError, match="forgot a request"):
        asking.check()


def test_bounds_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_num_seqs=0: must be at least 1"):
        DecodePolicies(admit=Greedy(), max_num_seqs=0)
    for watermark in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"watermark={watermark}: must be at least 0 and below 1"):
            DecodePolicies(admit=Greedy(), watermark=watermark)
    with pytest.raises(ValueError, match=r"recompute_chunk_size=0: must be at least 1"):
        DecodePolicies(admit=Greedy(), recompute_chunk_size=0)


def num_steady(made: DecodeScheduler) -> int:
    """Of the batch that begins now."""
    assert made.next_batch(2.0) is not None
    return made.num_steady_iterations()


def test_a_batch_goes_on_for_as_long_as_the_first_that_waits_is_refused() -> None:
    policy = Recording(True)
    made = scheduler(admit=policy)
    arrive(made, 0)
    step(made)
    policy.answer, policy.times = False, 7
    reserve(made, 1)
    assert num_steady(made) == 7


def test_whoever_has_no_seat_does_not_end_a_batch() -> None:
    policy, alone = Recording(True), scheduler()
    made = scheduler(admit=policy, max_num_seqs=1)
    for one in (made, alone):
        arrive(one, 0)
        step(one)
    reserve(made, 1)
    assert num_steady(made) == num_steady(alone) > 1


def test_whoever_was_preempted_comes_before_those_who_ask() -> None:
    """There is no memory for the one; the other would have a seat at once."""
    policy = Recording(True)
    made = scheduler(4, policy)
    arrive(made, 0, 1)
    while not [event for event in made.outbox.events if event.kind is EventKind.PREEMPTED]:
        step(made)
    policy.answer = False
    reserve(made, 2)
    assert num_steady(made) > 1
