"""An iteration as the first rank tells the others of it: bytes, with as much of each sequence as the pass needs."""

import msgspec

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch, BlockPair, PrefillChunk


class _Rows(msgspec.Struct, array_like=True, frozen=True):
    """Tokens of one sequence from position `start` on, and the blocks up to there."""

    start: int
    tokens: list[int]
    block_ids: list[int]
    yields_token: bool = True


class _Frame(msgspec.Struct, array_like=True, frozen=True):
    prefill: list[_Rows]
    decode: list[_Rows]
    num_padding_tokens: int
    swap_out: list[BlockPair]
    swap_in: list[BlockPair]


_DECODER = msgspec.msgpack.Decoder(_Frame)


def encode(batch: Batch, block_size: int) -> bytes:
    def rows(sequence: Sequence, start: int, stop: int, yields_token: bool = True) -> _Rows:
        block_ids = sequence.block_ids[: ceil_div(stop, block_size)]
        return _Rows(start, sequence.token_ids(start, stop), block_ids, yields_token)

    frame = _Frame(
        [rows(one.sequence, one.start, one.start + one.num_tokens, one.yields_token) for one in batch.prefill],
        [rows(one, one.num_tokens - 1, one.num_tokens) for one in batch.decode],
        batch.num_padding_tokens,
        batch.swap_out,
        batch.swap_in,
    )
    return msgspec.msgpack.encode(frame)


def decode(frame: bytes) -> Batch:
    """A batch of which the forward pass is the same. Its sequences are numbered, and know of no token before."""
    told = _DECODER.decode(frame)
    decoding = [_sequence(number, rows) for number, rows in enumerate(told.decode)]
    chunks = [
        PrefillChunk(_sequence(number, rows), rows.start, len(rows.tokens))
        for number, rows in enumerate(told.prefill, len(decoding))
    ]
    return Batch(chunks, decoding, told.num_padding_tokens, told.swap_out, told.swap_in)


def _sequence(number: int, rows: _Rows) -> Sequence:
    """What came before `start` counts as its prompt, whose tokens nobody asks for."""
    request = Request(id=number, arrival_s=0.0, num_prompt_tokens=rows.start, max_output_tokens=len(rows.tokens) + 1)
    output_ids = rows.tokens if rows.yields_token else [*rows.tokens, 0]
    return Sequence(request, LengthRange(0, 1), rows.block_ids, num_computed=rows.start, output_ids=output_ids)
