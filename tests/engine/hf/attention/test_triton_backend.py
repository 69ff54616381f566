"""The whole engine on the Triton kernels, interpreted where there is no GPU."""

import random
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver
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
    """Chunks after a context, decodes beside them, padding, and in the end decodes alone, replayed."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("tetribench.engine.hf.runner.WARM_UP_TOKENS", 40)  # interpreted, the usual 1,024 take long
    engine = HFEngine(
        model=model, device=Device.cpu, attention=Attention.triton, kv_memory_gib=16 * MIB / GIB, graph_sequences=4
    )
    driver = make_driver(engine)
    assert driver.runner.info.attention == "triton paged"
    rng = random.Random(3)
    prompts = [[rng.randrange(512) for _ in range(length)] for length in (5, 33, 16)]
    sequences = [driver.sequence(i, prompt, 4) for i, prompt in enumerate(prompts)]
    assert driver.finish(sequences, 16, num_padding_tokens=3) == [reference(prompt, 4) for prompt in prompts]


def test_the_kernels_pass_the_check_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    needs = AttentionNeeds(is_cuda=False, dtype="float32", head_size=16, fa3_library=None)
    chosen = choose_attention(Attention.triton, needs, MODELS["llama"].shape(), 16, torch.device("cpu"))
    assert (chosen.attention, chosen.passed_over) == (Attention.triton, {})
