"""Decodes as a list of operators: the same tokens, and nothing of the model's own Python while they run."""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import pytest
import torch

from tests.engine.hf.driver import Driver, graphs_of, spy_on_replays, tiny_engine
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.flat import OperatorRecorder
from tetribench.engine.hf.graphs import Run
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


WEIGHTS, BIAS = torch.randn(4, 4), torch.randn(4)
STEPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "views": lambda x: x[1:].t().reshape(-1, 3).unsqueeze(0).expand(2, -1, -1),
    "several results": lambda x: torch.nn.functional.layer_norm(x, (4,), WEIGHTS[0], BIAS) + x.max(dim=0).values,
    "a result that no operator writes to": lambda x: x.to(torch.float64) + 1,
    "memory that is written to": lambda x: torch.zeros(4, 4).add_(x).mul_(x.sin()),
    "a part that is written to": lambda x: torch.cat([x, x]).index_fill_(0, torch.tensor([1, 6]), 2.0),
    "what torch makes of several": lambda x: torch.nn.functional.linear(x, WEIGHTS, BIAS) @ x,
    "no tensors": lambda x: torch.arange(4) + torch.ones(4) * x,
    "a tensor twice": lambda x: (x * x).softmax(-1) / (x.exp() + x),
    "one that is needed much later": lambda x: (x + 1) * (((x + 2).exp() + 3).sin() + 4).t().contiguous(),
    "a view that is needed much later": lambda x: (x + 1)[1:2] * ((x + 2).exp() + 3).sin().sum(0),
    "rows by number": lambda x: x[torch.tensor([2, 0, 2])] * 2,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@torch.inference_mode()
def test_what_tensors_hold_is_read_anew_each_time(step: Callable[[torch.Tensor], torch.Tensor]) -> None:
    given = torch.zeros(4, 4)
    found = torch.zeros_like(step(given))

    def run() -> None:
        found.copy_(step(given))

    replay = OperatorRecorder()(run)
    for seed in range(3):
        given.copy_(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)))
        replay()
        assert torch.equal(found, step(given))


@torch.inference_mode()
def test_passes_of_all_sizes_compute_in_the_memory_of_the_largest() -> None:
    given, found = torch.zeros(8, 4), torch.zeros(8, 4)
    record = OperatorRecorder()
    replays: dict[int, Run] = {}
    for size in (8, 3, 1, 5):

        def run(size: int = size) -> None:
            found[:size] = (given[:size] + 1).relu().softmax(-1) * 2

        replays[size] = record(run)
    for size in (3, 8, 1, 5, 3):
        given.normal_()
        found.zero_()
        replays[size]()
        assert torch.equal(found[:size], (given[:size] + 1).relu().softmax(-1) * 2) and not found[size:].any()
    assert record._memory.nbytes == 2 * 8 * 4 * 4, "of four results no more than two are needed at a time"


@pytest.mark.parametrize(
    "decide",
    [lambda x: x.sum() > 3, lambda x: x.nonzero().shape[0] > 3, lambda x: x[x > 0].shape[0] > 3],
)
def test_a_pass_that_decides_by_what_it_computes_is_refused(decide: Callable[[torch.Tensor], object]) -> None:
    given = torch.ones(3)

    def run() -> None:
        if decide(given):
            given.neg_()

    with pytest.raises(RuntimeError, match="depends on what"):
        OperatorRecorder()(run)


def test_a_pass_that_does_something_else_each_time_is_refused() -> None:
    sizes = iter((1, 2, 3))

    def run() -> None:
        torch.ones(3) * torch.ones(next(sizes), 1)

    with pytest.raises(RuntimeError, match="something else each time"):
        OperatorRecorder()(run)
