"""The kernel in C against attention written out, and the whole engine on it."""

import ctypes
import random
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tetribench.engine.hf.attention.native.backend as backend
import tetribench.engine.hf.attention.native.library as library
from tests.engine.hf.driver import MODELS, Driver, spy_on_replays
from tetribench.core.units import GIB, MIB, ceil_div
from tetribench.engine.hf.attention.choose import choose_attention
from tetribench.engine.hf.attention.native.library import Shape, paged_decode
from tetribench.engine.hf.attention.options import Attention, AttentionNeeds
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model
from tetribench.engine.native.compiler import compiled, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")

NEEDS = AttentionNeeds(is_cuda=False, dtype="float32", head_size=16, fa3_library=None)


def decode(query: Tensor, keys: Tensor, values: Tensor, table: Tensor, num_keys: Tensor, scaling: float) -> Tensor:
    """Of contiguous blocks `[blocks, block_size, kv_heads, size]`."""
    out = torch.empty_like(query)
    most = ceil_div(int(num_keys.max()), 16) * 16
    scores = torch.full((query.shape[1], most), torch.nan)
    sizes = (query.shape[1], *keys.shape[2:], keys.shape[1], keys.stride(0), table.shape[1], most)
    addresses = [one.data_ptr() for one in (query, keys, values, table, num_keys, out, scores)]
    paged_decode()(*addresses, ctypes.byref(Shape(*sizes)), len(query), scaling)
    return out


def written_out(query: Tensor, keys: Tensor, values: Tensor, table: Tensor, num_keys: Tensor, scaling: float) -> Tensor:
    rows = []
    for one, blocks, number in zip(query.double(), table.long(), num_keys.tolist(), strict=True):
        group = query.shape[1] // keys.shape[2]
        own_keys, own_values = (
            pool[blocks].double().flatten(0, 1)[:number].repeat_interleave(group, dim=1) for pool in (keys, values)
        )
        weights = torch.softmax(torch.einsum("hd,khd->hk", one, own_keys) * scaling, dim=-1)
        rows.append(torch.einsum("hk,khd->hd", weights, own_values))
    return torch.stack(rows).float()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    block_size=st.sampled_from([1, 4, 16, 19]),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (9, 3)]),
    size=st.sampled_from([16, 48, 64, 80, 128, 144]),
    spread=st.sampled_from([0.1, 1.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_it_attends_to_the_keys_of_each_sequence_alone(
    lengths: list[int], block_size: int, heads: tuple[int, int], size: int, spread: float, seed: int
) -> None:
    """What is not a sequence's key is NaN here; a large spread of scores leaves one key all the weight."""
    num_heads, kv_heads = heads
    torch.manual_seed(seed)
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
    query, num_keys = torch.randn(len(lengths), num_heads, size), torch.tensor(lengths, dtype=torch.int32)
    arguments = (query, keys, values, table, num_keys, spread * size**-0.5)
    torch.testing.assert_close(decode(*arguments), written_out(*arguments), atol=1e-4, rtol=1e-4)


def test_equal_scores_are_a_mean_at_any_height() -> None:
    """Weights are relative to the largest: scores of 1,000 or -1,000 neither overflow nor vanish."""
    values = torch.randn(3, 16, 1, 16)
    table, num_keys = torch.tensor([[2, 0, 1]], dtype=torch.int32), torch.tensor([41], dtype=torch.int32)
    expected = values[[2, 0, 1]].flatten(0, 1)[:41].mean(0)
    for height in (1000.0, 0.0, -1000.0):
        out = decode(torch.ones(1, 1, 16), torch.full_like(values, height), values, table, num_keys, 1 / 16)
        torch.testing.assert_close(out[0], expected)


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
    replays = spy_on_replays(driver, monkeypatch)
    for num_padding_tokens in (3, 0):
        sequences = [driver.sequence(i, prompt, 9) for i, prompt in enumerate(prompts)]
        outputs = driver.finish(sequences, 16, num_padding_tokens)
        driver.give_back(sequences)
        assert outputs == [reference(prompt, 9) for prompt in prompts]
        assert bool(replays) == (num_padding_tokens == 0)


def test_a_compiler_that_fails_is_quoted_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_anew = library.paged_decode.__wrapped__
    monkeypatch.setattr(library, "compiled", partial(compiled, flags=("--no-such-flag",)))
    with pytest.raises(RuntimeError, match="no-such-flag"):
        compile_anew()
    monkeypatch.setattr(backend, "paged_decode", compile_anew)
    shape, cpu = MODELS["llama"].shape(), torch.device("cpu")
    chosen = choose_attention(Attention.auto, NEEDS, shape, 16, cpu)
    assert chosen.attention is Attention.sdpa and "no-such-flag" in chosen.passed_over["native"]
    with pytest.raises(
        ValueError, match=r"^engine.attention=native: fails on a small batch .*; legal are auto and sdpa$"
    ):
        choose_attention(Attention.native, NEEDS, shape, 16, cpu)
