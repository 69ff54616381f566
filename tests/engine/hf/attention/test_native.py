"""The kernel in C against attention written out, and the whole engine on it."""

import math
import random
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tetribench.engine.hf.attention.native.backend as backend
import tetribench.engine.hf.attention.native.library as library
import tetribench.engine.hf.attention.native.operators as operators
from tests.engine.hf.driver import MODELS, Driver, graphs_of, spy_on_replays
from tests.support.registers import REGISTERS, recompiled
from tetribench.core.units import GIB, MIB, ceil_div
from tetribench.engine.hf.attention.choose import choose_attention
from tetribench.engine.hf.attention.native.operators import CHUNK_ROWS, PADDING
from tetribench.engine.hf.attention.options import Attention, AttentionNeeds
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.engine.native.compiler import compiled, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")

NEEDS = AttentionNeeds(is_cuda=False, dtype="float32", head_size=16, fa3_library=None)


def rounded(num_keys: Tensor) -> int:
    return ceil_div(int(num_keys.max()), 32) * 32


def unset(*sizes: int) -> Tensor:
    return torch.full(sizes, torch.nan)


def decode(query: Tensor, keys: Tensor, values: Tensor, table: Tensor, num_keys: Tensor, scaling: float) -> Tensor:
    out, scores = unset(*query.shape), unset(query.shape[1], rounded(num_keys))
    torch.ops.tetribench.paged_decode(query, keys, values, table, num_keys, scores, out, scaling)
    return out


def chunks(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    num_keys: Tensor,
    row_starts: Tensor,
    scaling: float,
) -> Tensor:
    most, out = rounded(num_keys), unset(*query.shape)
    scratch = (unset(most, query.shape[2]), unset(most, query.shape[2]), unset(CHUNK_ROWS, most + PADDING))
    torch.ops.tetribench.paged_chunks(query, keys, values, table, num_keys, row_starts, *scratch, out, scaling)
    return out


def written_out(query: Tensor, keys: Tensor, values: Tensor, table: Tensor, num_keys: Tensor, scaling: float) -> Tensor:
    """Of one query for each sequence."""
    rows = []
    for one, blocks, number in zip(query.double(), table.long(), num_keys.tolist(), strict=True):
        group = query.shape[1] // keys.shape[2]
        own_keys, own_values = (
            pool[blocks].double().flatten(0, 1)[:number].repeat_interleave(group, dim=1) for pool in (keys, values)
        )
        weights = torch.softmax(torch.einsum("hd,khd->hk", one, own_keys) * scaling, dim=-1)
        rows.append(torch.einsum("hk,khd->hd", weights, own_values))
    return torch.stack(rows).float()


def blocks_of(lengths: list[int], block_size: int, kv_heads: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and the table of sequences of `lengths` tokens, in blocks that lie anyhow: all else is NaN."""
    widths = [ceil_div(length, block_size) for length in lengths]
    keys, values = torch.full((2, sum(widths), block_size, kv_heads, size), torch.nan)
    table = torch.zeros((len(lengths), max(widths)), dtype=torch.int32)
    free = torch.split(torch.randperm(sum(widths)), widths)
    for row, own, length in zip(table, free, lengths, strict=True):
        row[: len(own)] = own
        for pool in (keys, values):
            tokens = torch.full((len(own) * block_size, kv_heads, size), torch.nan)
            tokens[:length] = torch.randn(length, kv_heads, size)
            pool[own] = tokens.view(len(own), block_size, kv_heads, size)
    return keys, values, table


def rows_of(num_rows: int, num_heads: int, size: int, heads_first: bool) -> Tensor:
    """`[rows, heads, size]`, in memory as a projection leaves them or as a rotation does."""
    if heads_first:
        return torch.randn(num_heads, num_rows, size).transpose(0, 1)
    return torch.randn(num_rows, num_heads, size)


@dataclass(frozen=True, slots=True)
class Layout:
    """How queries, keys and values lie. A large spread of scores leaves one key all the weight."""

    block_size: int
    heads: tuple[int, int]
    size: int
    spread: float
    heads_first: bool
    seed: int

    def of(self, lengths: list[int], num_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values and the table of sequences of `lengths` tokens."""
        torch.manual_seed(self.seed)
        num_heads, kv_heads = self.heads
        blocks = blocks_of(lengths, self.block_size, kv_heads, self.size)
        return rows_of(num_rows, num_heads, self.size, self.heads_first), *blocks

    @property
    def scaling(self) -> float:
        return self.spread / math.sqrt(self.size)


LAYOUTS = st.builds(
    Layout,
    block_size=st.sampled_from([1, 4, 16, 19]),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (9, 3)]),
    size=st.sampled_from([16, 48, 64, 80, 128, 144]),
    spread=st.sampled_from([0.1, 1.0, 40.0]),
    heads_first=st.booleans(),
    seed=st.integers(0, 99),
)


@pytest.fixture(scope="module", params=REGISTERS)
def registers(request: pytest.FixtureRequest) -> Iterator[None]:
    with recompiled(request.param, library, library.kernels, operators):
        yield


@pytest.mark.usefixtures("registers")
@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5), layout=LAYOUTS)
def test_a_decode_attends_to_the_keys_of_its_sequence_alone(lengths: list[int], layout: Layout) -> None:
    num_keys = torch.tensor(lengths, dtype=torch.int32)
    arguments = (*layout.of(lengths, len(lengths)), num_keys, layout.scaling)
    torch.testing.assert_close(decode(*arguments), written_out(*arguments), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("registers")
@settings(max_examples=60, deadline=None)
@given(sequences=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 40)), min_size=1, max_size=3), layout=LAYOUTS)
def test_a_chunk_attends_to_what_is_before_each_token_and_to_itself(
    sequences: list[tuple[int, int]], layout: Layout
) -> None:
    """Sequences are tokens before the chunk and in it."""
    lengths, rows = [context + own for context, own in sequences], [own for _, own in sequences]
    query, keys, values, table = layout.of(lengths, sum(rows))
    row_starts = torch.tensor([0, *rows]).cumsum(0, dtype=torch.int32)
    num_keys = torch.tensor(lengths, dtype=torch.int32)
    found = chunks(query, keys, values, table, num_keys, row_starts, layout.scaling)
    each_row = table.repeat_interleave(torch.tensor(rows), dim=0)
    seen = torch.cat([torch.arange(context + 1, context + own + 1) for context, own in sequences])
    expected = written_out(query, keys, values, each_row, seen, layout.scaling)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(slots=st.permutations(range(12)), num_rows=st.integers(1, 12), kv_heads=st.integers(1, 3), first=st.booleans())
def test_rows_are_stored_in_their_slots_alone(slots: list[int], num_rows: int, kv_heads: int, first: bool) -> None:
    keys, values = rows_of(num_rows, kv_heads, 16, first), rows_of(num_rows, kv_heads, 16, not first)
    memory, taken = torch.zeros(2, 12, kv_heads, 16), torch.tensor(slots[:num_rows])
    expected = [one.index_copy(0, taken, rows) for one, rows in zip(memory, (keys, values), strict=True)]
    torch.ops.tetribench.paged_store(keys, values, taken, memory[0, :, None], memory[1, :, None])
    assert torch.equal(memory, torch.stack(expected))


@pytest.mark.parametrize(("block", "length"), [(3, 41), (-1, 41), (0, 49), (0, 0)])
def test_keys_outside_of_the_memory_are_refused(block: int, length: int) -> None:
    keys, query = torch.randn(3, 16, 1, 16), torch.randn(1, 1, 16)
    table = torch.tensor([[0, block, 2]], dtype=torch.int32)
    num_keys, starts = torch.tensor([length], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
    out, scores, scratch = torch.zeros(1, 1, 16), torch.zeros(1, 64), torch.zeros(2, 64, 16)
    arguments = (query, keys, keys, table, num_keys)
    with pytest.raises(IndexError, match="outside of the pool"):
        torch.ops.tetribench.paged_decode(*arguments, scores, out, 1.0)
    with pytest.raises(IndexError, match="outside of the pool"):
        torch.ops.tetribench.paged_chunks(*arguments, starts, *scratch, torch.zeros(8, 80), out, 1.0)


@pytest.mark.parametrize("slot", [-1, 48])
def test_a_slot_outside_of_the_memory_is_refused_before_anything_is_written(slot: int) -> None:
    blocks, slots = torch.zeros(3, 16, 1, 16), torch.tensor([0, slot])
    with pytest.raises(IndexError, match="outside of the pool"):
        torch.ops.tetribench.paged_store(torch.ones(2, 1, 16), torch.ones(2, 1, 16), slots, blocks, blocks)
    assert not blocks.any()


def test_equal_scores_are_a_mean_at_any_height() -> None:
    """Weights are relative to the largest: scores of 1,000 or -1,000 neither overflow nor vanish."""
    values = torch.randn(3, 16, 1, 16)
    table, num_keys = torch.tensor([[2, 0, 1]], dtype=torch.int32), torch.tensor([41], dtype=torch.int32)
    expected = values[[2, 0, 1]].flatten(0, 1)[:41].mean(0)
    row_starts = torch.tensor([0, 1], dtype=torch.int32)
    for height in (1000.0, 0.0, -1000.0):
        arguments = (torch.ones(1, 1, 16), torch.full_like(values, height), values, table, num_keys)
        torch.testing.assert_close(decode(*arguments, 1 / 16)[0], expected)
        torch.testing.assert_close(chunks(*arguments, row_starts, 1 / 16)[0], expected)


def test_mixed_batches_give_the_tokens_of_generate(
    model: Model,
    reference: Callable[[SequenceOf[int], int], list[int]],
    make_driver: Callable[[HFEngine], Driver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks after a context, decodes beside them, padding; without it, decodes alone are replayed."""
    engine = HFEngine(
        model=model, device=Device.cpu, attention=Attention.native, kv_memory_gib=16 * MIB / GIB, graph_sequences=3
    )
    driver = make_driver(engine)
    assert driver.runner.info.attention == "native paged"
    rng = random.Random(3)
    prompts = [[rng.randrange(512) for _ in range(length)] for length in (5, 200, 16)]
    replays = spy_on_replays(graphs_of(driver), monkeypatch)
    for num_padding_tokens in (3, 0):
        sequences = [driver.sequence(i, prompt, 9) for i, prompt in enumerate(prompts)]
        outputs = driver.finish(sequences, 16, num_padding_tokens)
        driver.give_back(sequences)
        assert outputs == [reference(prompt, 9) for prompt in prompts]
        assert bool(replays) == (num_padding_tokens == 0)


def test_a_compiler_that_fails_is_quoted_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_anew = library.kernels.__wrapped__
    monkeypatch.setattr(library, "compiled", partial(compiled, flags=("--no-such-flag",)))
    with pytest.raises(RuntimeError, match="no-such-flag"):
        compile_anew()
    monkeypatch.setattr(backend, "kernels", compile_anew)
    shape, cpu = MODELS["llama"].shape(), torch.device("cpu")
    chosen = choose_attention(Attention.auto, NEEDS, shape, 16, cpu)
    assert chosen.attention is Attention.sdpa and "no-such-flag" in chosen.passed_over["native"]
    with pytest.raises(
        ValueError, match=r"^engine.attention=native: fails on a small batch .*; legal are auto and sdpa$"
    ):
        choose_attention(Attention.native, NEEDS, shape, 16, cpu)
