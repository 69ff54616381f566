"""The whole engine on the Triton kernels, interpreted where there is no GPU."""

import random
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver, graphs_of, spy_on_replays
from tetribench.core.units import GIB, MIB
from tetribench.engine.hf.attention.choose import choose_attention
from tetribench.engine.hf.attention.options import Attention, AttentionNeeds
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Model

pytest.importorskip("triton", reason="the package triton is not installed (pip install 'tetribench[dev]')")


def test_mixed_batches_give_the_tokens_of_generate(
    model: Model,
    reference: Callable[[SequenceOf[int], int], list[int]],
    make_driver: Callable[[HFEngine], Driver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks after a context, decodes beside them, padding; without it, decodes alone are replayed."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("tetribench.engine.hf.runner.WARM_UP_TOKENS", 20)  # interpreted, the usual 1,024 take long
    monkeypatch.setattr("tetribench.engine.hf.attention.kernels.decode._ENOUGH_PROGRAMS", 8)  # so do many splits
    engine = HFEngine(
        model=model, device=Device.cpu, attention=Attention.triton, kv_memory_gib=16 * MIB / GIB, graph_sequences=3
    )
    driver = make_driver(engine)
    assert driver.runner.info.attention == "triton paged"
    rng = random.Random(3)
    prompts = [[rng.randrange(512) for _ in range(length)] for length in (5, 20, 16)]
    replays = spy_on_replays(graphs_of(driver), monkeypatch)
    for num_padding_tokens in (3, 0):
        sequences = [driver.sequence(i, prompt, 3) for i, prompt in enumerate(prompts)]
        outputs = driver.finish(sequences, 16, num_padding_tokens)
        driver.give_back(sequences)
        assert outputs == [reference(prompt, 3) for prompt in prompts]
        assert bool(replays) == (num_padding_tokens == 0)


def test_the_kernels_pass_the_check_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    needs = AttentionNeeds(is_cuda=False, dtype="float32", head_size=16, fa3_library=None)
    chosen = choose_attention(Attention.triton, needs, MODELS["llama"].shape(), 16, torch.device("cpu"))
    assert (chosen.attention, chosen.passed_over) == (Attention.triton, {})
