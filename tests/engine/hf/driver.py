"""A tiny engine, a driver that takes sequences through it the way an instance would, and transformers' own answer."""

import asyncio
import random
from collections.abc import Sequence as SequenceOf

import pytest
import torch
from transformers import PreTrainedModel

from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import GIB, MIB, ceil_div
from tetribench.engine.base import Batch, Engine, OnLayer, PrefillChunk
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.chunk_graphs import ChunkGraphs
from tetribench.engine.hf.graphs import DecodeGraphs, Run
from tetribench.engine.hf.runner import HFRunner
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Architecture, Model

MODELS = {
    "opt": Model(name="opt_tiny", num_layers=2, hidden_size=64, ffn_size=128, vocab_size=512, max_context_tokens=512),
    "llama": Model(
        name="llama_tiny",
        architecture=Architecture.llama,
        num_layers=2,
        hidden_size=64,
        ffn_size=128,
        num_kv_heads=2,
        vocab_size=512,
        max_context_tokens=512,
    ),
}


def tiny_engine(model: Model, *, temperature: float = 0.0, attention: Attention = Attention.auto) -> HFEngine:
    return HFEngine(
        model=model, device=Device.cpu, kv_memory_gib=16 * MIB / GIB, temperature=temperature, attention=attention
    )


class Driver:
    """Runs sequences on one engine, with blocks handed out in a shuffled order."""

    def __init__(self, engine: Engine, loop: asyncio.Runner) -> None:
        self.engine = engine
        self._loop = loop
        self.free_blocks = list(range(engine.info.num_blocks))
        random.Random(7).shuffle(self.free_blocks)

    @property
    def runner(self) -> HFRunner:
        """The engine, where it is in this process alone."""
        assert isinstance(self.engine, HFRunner)
        return self.engine

    def sequence(self, request_id: int, prompt: SequenceOf[int], num_new: int) -> Sequence:
        request = Request(
            id=request_id,
            arrival_s=0.0,
            num_prompt_tokens=len(prompt),
            max_output_tokens=num_new,
            prompt_ids=tuple(prompt),
        )
        return Sequence(request=request, predicted=LengthRange(0, 1), block_ids=self.take_blocks(len(prompt) + num_new))

    def take_blocks(self, num_tokens: int) -> list[int]:
        return [self.free_blocks.pop() for _ in range(ceil_div(num_tokens, self.engine.info.block_size))]

    def give_back(self, sequences: SequenceOf[Sequence]) -> None:
        for sequence in sequences:
            self.free_blocks[:0] = sequence.block_ids

    def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        """One iteration, after which the sequences know what was computed."""
        tokens = self._loop.run(self.engine.run(batch, on_layer))
        for sequence, num_tokens in [
            *((c.sequence, c.num_tokens) for c in batch.prefill),
            *((s, 1) for s in batch.decode),
        ]:
            sequence.num_computed += num_tokens
        for sequence in [*(c.sequence for c in batch.prefill if c.yields_token), *batch.decode]:
            sequence.output_ids.append(tokens[sequence.request.id])
        return tokens

    def finish(
        self, sequences: SequenceOf[Sequence], chunk_tokens: int, num_padding_tokens: int = 0
    ) -> list[list[int]]:
        """Mixed batches, first come first served within `chunk_tokens`, until all responses are complete."""
        while True:
            running = [s for s in sequences if len(s.output_ids) < s.request.max_output_tokens]
            if not running:
                return [sequence.output_ids for sequence in sequences]
            batch = Batch(num_padding_tokens=num_padding_tokens)
            left = chunk_tokens
            for sequence in running:
                if sequence.num_computed >= sequence.request.num_prompt_tokens:
                    batch.decode.append(sequence)
                elif left:
                    num_tokens = min(left, sequence.num_uncomputed)
                    batch.prefill.append(PrefillChunk(sequence, sequence.num_computed, num_tokens))
                    left -= num_tokens
            self.run(batch)


def generate(loaded: PreTrainedModel, prompt: SequenceOf[int], num_new: int) -> list[int]:
    """`attention_mask` is given, or `generate` would take a padding id inside the prompt for padding."""
    ids = torch.tensor([prompt])
    out = loaded.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_new,
        min_new_tokens=num_new,
        eos_token_id=None,
        pad_token_id=0,
    )
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


def graphs_of(driver: Driver) -> DecodeGraphs:
    assert driver.runner._graphs is not None
    return driver.runner._graphs


def spy_on_replays(graphs: DecodeGraphs | ChunkGraphs, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size that each replay from now on was recorded for."""
    seen: list[int] = []

    def counted(size: int, replay: Run) -> Run:
        def run() -> None:
            seen.append(size)
            replay()

        return run

    monkeypatch.setattr(graphs, "_replay", {size: counted(size, replay) for size, replay in graphs._replay.items()})
    return seen
