"""Decodes as a list of operators: the same tokens, and nothing of the model's own Python while they run."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import pytest
import torch

from tests.engine.hf.driver import Driver, graphs_of, spy_on_replays, tiny_engine
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.flat import record_operators
from tetribench.engine.hf.schema import HFEngine
from tetribench.engine.model import Model

Reference = Callable[[SequenceOf[int], int], list[int]]
MakeDriver = Callable[[HFEngine], Driver]

PROMPTS = [list(range(3, 3 + length)) for length in (1, 40, 7, 16, 90, 33)]


@pytest.mark.parametrize("attention", [Attention.native, Attention.sdpa])
def test_tokens_are_those_of_generate_without_the_modules(
    attention: Attention,
    model: Model,
    reference: Reference,
    make_driver: MakeDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny_engine(model, attention=attention)
    engine.graph_sequences = 8
    driver = make_driver(engine)
    sequences = [driver.sequence(i, prompt, 20 + i) for i, prompt in enumerate(PROMPTS)]
    driver.run(Batch(prefill=[PrefillChunk(sequence, 0, sequence.num_uncomputed) for sequence in sequences]))
    replayed = spy_on_replays(graphs_of(driver), monkeypatch)
    monkeypatch.setattr(driver.runner._model, "forward", refuse)
    assert driver.finish(sequences, 4096) == [reference(prompt, 20 + i) for i, prompt in enumerate(PROMPTS)]
    assert replayed == [8] * 20 + [4] * 2 + [2, 1], "sequences end one after the other"


def test_decodes_alone_that_are_not_recorded_give_them_too(
    model: Model, reference: Reference, make_driver: MakeDriver
) -> None:
    """They are packed from what the pass before left, also when a sequence ends or another one comes."""
    engine = tiny_engine(model)
    engine.graph_sequences = 0
    driver = make_driver(engine)
    sequences = [driver.sequence(i, prompt, 20 + i) for i, prompt in enumerate(PROMPTS)]
    for first in range(0, len(sequences), 2):
        driver.run(Batch(prefill=[PrefillChunk(s, 0, s.num_uncomputed) for s in sequences[first : first + 2]]))
        for _ in range(3):
            driver.run(Batch(decode=sequences[: first + 2]))
    assert driver.finish(sequences, 4096) == [reference(prompt, 20 + i) for i, prompt in enumerate(PROMPTS)]


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("the model's own forward pass")


def test_what_tensors_hold_is_read_anew_each_time() -> None:
    given, found = torch.zeros(3), torch.zeros(3)

    def run() -> None:
        torch.add(given, 1, out=found)

    replay = record_operators(run)
    for value in (4.0, -1.0):
        given.fill_(value)
        replay()
        assert found.tolist() == [value + 1] * 3


def test_a_pass_that_decides_by_what_it_computes_is_refused() -> None:
    given = torch.ones(3)

    def run() -> None:
        if (given * 2).sum() > 3:
            given.neg_()

    with pytest.raises(RuntimeError):
        record_operators(run)
