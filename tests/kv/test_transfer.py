from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import sequence
from tetribench.kv.transfer import Granularity, Handover, Moved, Push

NUM_LAYERS = 3


def handover(prompt: int = 40, granularity: Granularity = Granularity.chunk) -> Handover:
    """Blocks of 16: a prompt of 40 tokens has two whole ones and one that is half full."""
    num_blocks = -(-prompt // 16)
    made = Handover(sequence(prompt=prompt, num_blocks=num_blocks), "decode-0", 7, prompt, granularity, 16)
    made.target_ids = list(range(100, 100 + num_blocks))
    return made


def test_a_request_goes_in_one_push_after_its_last_chunk() -> None:
    one = handover(granularity=Granularity.request)
    one.sequence.num_computed = 39
    assert one.next_push() is None
    one.sequence.num_computed = 40
    assert one.next_push() == Push(0, 7, "decode-0", [0, 1, 2], [100, 101, 102], is_last=True)
    assert one.next_push() is None


def test_chunks_go_as_they_are_computed_and_a_block_that_is_still_filled_waits() -> None:
    one = handover()
    assert one.next_push() is None
    one.sequence.num_computed = 20
    assert one.next_push() == Push(0, 7, "decode-0", [0], [100], is_last=False)
    assert one.next_push() is None
    one.sequence.num_computed = 31
    assert one.next_push() is None
    one.sequence.num_computed = 40
    assert one.next_push() == Push(0, 7, "decode-0", [1, 2], [101, 102], is_last=True)


def test_nothing_goes_before_the_target_has_made_room() -> None:
    one = handover()
    target_ids, one.target_ids = one.target_ids, None
    one.sequence.num_computed = 40
    assert one.next_push() is None
    one.target_ids = target_ids
    push = one.next_push()
    assert push is not None and push.is_last and push.source_ids == [0, 1, 2]


def test_nothing_goes_once_it_is_cancelled() -> None:
    one = handover()
    one.sequence.num_computed, one.is_cancelled = 40, True
    assert one.next_push() is None


def test_pushes_are_counted_while_in_flight_and_summed_when_they_end() -> None:
    one = handover()
    one.sequence.num_computed = 16
    first = one.next_push()
    one.sequence.num_computed = 40
    second = one.next_push()
    assert first is not None and second is not None and one.num_in_flight == 2
    one.moved(Moved(first, 1.0, 1.5, 100))
    one.moved(Moved(second, 2.0, 2.25, 200))
    assert (one.num_in_flight, one.num_moved_bytes, one.busy_s) == (0, 300, 0.75)


@given(st.integers(1, 100), st.sampled_from(Granularity), st.lists(st.integers(1, 40), max_size=8), st.integers(0, 8))
def test_every_block_goes_once_and_in_order_and_never_before_it_is_full(
    prompt: int, granularity: Granularity, chunks: list[int], granted_after: int
) -> None:
    one = handover(prompt, granularity)
    target_ids, one.target_ids = one.target_ids, None
    assert target_ids is not None
    pieces: list[Push] = []
    for index, num_tokens in enumerate([*chunks, prompt]):
        if index == granted_after:
            one.target_ids = target_ids
        num_computed = min(one.sequence.num_computed + num_tokens, prompt)
        layers = one.pushes_of_layers(num_computed, NUM_LAYERS)
        assert [push.layer for push in layers] == (list(range(NUM_LAYERS)) if layers else [])
        one.sequence.num_computed = num_computed
        push = one.next_push()
        assert push is None or not layers, "what goes by layers does not go again as a whole"
        for piece in [*layers, *([push] if push is not None else [])]:
            assert piece.source_ids
            assert one.is_prefilled or (max(piece.source_ids) + 1) * 16 <= one.sequence.num_computed
        pieces += [*layers, *([push] if push is not None else [])]
    one.target_ids = target_ids
    last = one.next_push()
    pieces += [last] if last is not None else []
    assert one.num_in_flight == len(pieces)
    for layer in range(NUM_LAYERS):
        mine = [piece for piece in pieces if piece.layer in (None, layer)]
        whole = [block for piece in mine for block in piece.source_ids]
        assert whole == one.sequence.block_ids
        assert [block for piece in mine for block in piece.target_ids] == target_ids
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert granularity is not Granularity.request or len(pieces) == 1
    assert granularity is Granularity.layer or all(piece.layer is None for piece in pieces)


def test_it_has_arrived_with_its_last_push() -> None:
    one = handover(granularity=Granularity.layer)
    first, last = one.pushes_of_layers(40, 2)
    assert (first.is_last, last.is_last) == (False, True)
    one.moved(Moved(first, 1.0, 1.5, 100))
    assert not one.has_arrived
    one.moved(Moved(last, 2.0, 2.25, 200))
    assert one.has_arrived and not one.is_prefilled
