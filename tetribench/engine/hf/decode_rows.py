"""What a pass of decodes alone is made of: most often the sequences of the pass before, each a token further.

Next to nothing of those is packed anew.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.hf.attention.tables import block_table
from tetribench.engine.hf.cache import TorchKVPool

IntArray = npt.NDArray[np.int64]

_SPARE_BLOCKS = 8
"""By which the longest sequence may grow before all are packed anew."""


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """One token for each of `request_ids`, on the host: `columns` are tokens, positions and slots `[3, rows]`."""

    columns: IntArray
    num_keys: npt.NDArray[np.int32]
    block_table: npt.NDArray[np.int32]
    request_ids: list[int]


class DecodePacker:
    """Packs decodes for one pool. What it hands out is good until the next time."""

    def __init__(self, pool: TorchKVPool) -> None:
        self._pool = pool
        self._sequences: list[Sequence] = []
        self._lengths: list[int] = []
        self._blocks: list[list[int]] = []
        """Those that each sequence's tokens were in."""
        self._columns: IntArray = np.zeros((3, 0), dtype=np.int64)
        self._num_keys = np.zeros(0, dtype=np.int32)
        self._table = np.zeros((0, 0), dtype=np.int32)
        self._request_ids: list[int] = []

    def pack(self, decode: SequenceOf[Sequence]) -> DecodeRows:
        if self._is_next(decode):
            self._advance()
            self._columns[0] = [_latest_token(sequence) for sequence in decode]
        else:
            self._begin(decode)
        width = ceil_div(max(self._lengths, default=0), self._pool.block_size)
        return DecodeRows(self._columns, self._num_keys, self._table[:, :width], self._request_ids)

    def _is_next(self, decode: SequenceOf[Sequence]) -> bool:
        """The same sequences, each one token longer and where it was, and the table has room for the longest."""
        if len(decode) != len(self._sequences) or not decode:
            return False
        if max(self._lengths) + 1 > self._table.shape[1] * self._pool.block_size:
            return False
        return all(
            one is known and one.num_tokens == length + 1 and one.block_ids[: len(blocks)] == blocks
            for one, known, length, blocks in zip(decode, self._sequences, self._lengths, self._blocks, strict=True)
        )

    def _begin(self, decode: SequenceOf[Sequence]) -> None:
        pool, block_size = self._pool, self._pool.block_size
        self._sequences = list(decode)
        self._lengths = [one.num_tokens for one in decode]
        self._blocks = [one.block_ids[: ceil_div(one.num_tokens, block_size)] for one in decode]
        self._num_keys = np.array(self._lengths, dtype=np.int32)
        table = block_table(decode, self._lengths, block_size, pool.scratch_block)
        self._table = np.pad(table, ((0, 0), (0, _SPARE_BLOCKS)), constant_values=pool.scratch_block)
        self._request_ids = [one.request.id for one in decode]
        self._columns = decode_columns(decode, pool)

    def _advance(self) -> None:
        block_size = self._pool.block_size
        self._lengths = [length + 1 for length in self._lengths]
        self._num_keys += 1
        self._columns[1:] += 1
        for row in np.flatnonzero(self._columns[1] % block_size == 0).tolist():
            place = len(self._blocks[row])
            block = self._sequences[row].block_ids[place]
            self._blocks[row].append(block)
            self._table[row, place] = block
            self._columns[2, row] = block * self._pool.slots_per_block


def decode_columns(decode: SequenceOf[Sequence], pool: TorchKVPool) -> IntArray:
    """Token, position and slot of each sequence's latest token: `[3, sequences]`."""
    positions = np.array([sequence.num_tokens - 1 for sequence in decode], dtype=np.int64)
    blocks = [
        sequence.block_ids[place]
        for sequence, place in zip(decode, (positions // pool.block_size).tolist(), strict=True)
    ]
    columns = np.empty((3, len(decode)), dtype=np.int64)
    columns[0] = [_latest_token(sequence) for sequence in decode]
    columns[1] = positions
    columns[2] = np.array(blocks, dtype=np.int64) * pool.slots_per_block + positions % pool.block_size
    return columns


def _latest_token(sequence: Sequence) -> int:
    """The one that is not computed yet."""
    return (sequence.output_ids or sequence.request.prompt_ids)[-1]
