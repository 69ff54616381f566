"""Where a decode iteration's time goes: `python -m tests.benchmarks.profile_iteration`.

Each attention that decodes on this CPU computes the same 64 sequences, in turns; a table for each model says how long
each kind of work took per iteration, by torch's profiler, which itself takes time with each operation: shares count.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from unittest import mock

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from tests.benchmarks.offline.cases import prompt_ids
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.core.clock import WallClock
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.core.units import ceil_div
from tetribench.engine.base import Batch, PrefillChunk
from tetribench.engine.hf.attention.native.library import paged_decode
from tetribench.engine.hf.runner import HFRunner

MODELS = ("opt_tiny", "llama_tiny")
ATTENTIONS = ("sdpa", "native")
BATCH, CONTEXT = 64, 512
NUM_ROUNDS, NUM_ITERATIONS = 5, 10
IN_PLACE = "attention in place"
KINDS = {
    "gather keys and values": ("aten::index_select", "aten::index", "aten::gather"),
    "write keys and values": ("aten::index_copy_", "aten::index_put_", "aten::_index_put_impl_", "aten::scatter_"),
    "attention": (IN_PLACE, "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::bmm", "aten::_softmax"),
    "matrix products": ("aten::addmm", "aten::mm", "aten::linear"),
}
"""Of torch's operations; all others are `OTHERS`."""
OTHERS = "everything else"


def build(model: str, attention: str) -> HFRunner:
    register()
    overrides = ["+workload=lpld", "runtime=inline", f"model={model}", f"engine.attention={attention}", "device=cpu"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        setup = Composition(compose("config", [*overrides, "engine.kv_memory_gib=1"]), "").setup()
    engine = setup.engine.sized(1).build(WallClock(), None)
    assert isinstance(engine, HFRunner)
    return engine


def iterate(engine: HFRunner, batch: Batch) -> None:
    tokens = engine._step(engine._pack(batch), batch)
    for sequence in batch.decode:
        sequence.num_computed += 1
        sequence.output_ids.append(tokens[sequence.request.id])


def prefilled(engine: HFRunner) -> Batch:
    """`BATCH` sequences that have their prompts' keys, values and first tokens."""
    num_tokens = 1 + NUM_ROUNDS * NUM_ITERATIONS
    num_blocks = ceil_div(CONTEXT + num_tokens, engine.info.block_size)
    sequences = []
    for id in range(BATCH):
        request = Request(
            id=id,
            arrival_s=0.0,
            num_prompt_tokens=CONTEXT,
            max_output_tokens=num_tokens,
            prompt_ids=tuple(prompt_ids(id, CONTEXT)),
        )
        sequence = Sequence(request, LengthRange(0, 1), block_ids=list(range(id * num_blocks, (id + 1) * num_blocks)))
        batch = Batch(prefill=[PrefillChunk(sequence, 0, CONTEXT)])
        sequence.output_ids.append(engine._step(engine._pack(batch), batch)[id])
        sequence.num_computed = CONTEXT
        sequences.append(sequence)
    return Batch(decode=sequences)


@contextmanager
def kernel_seen() -> Iterator[None]:
    """The kernel in C is no operation of torch's: here it is one."""
    kernel = paged_decode()

    def seen(*arguments: object) -> None:
        with record_function(IN_PLACE):
            kernel(*arguments)

    with mock.patch("tetribench.engine.hf.attention.native.backend.paged_decode", lambda: seen):
        yield


def milliseconds(engine: HFRunner, batch: Batch) -> dict[str, float]:
    """Of each kind of work, in one iteration."""
    with kernel_seen(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(NUM_ITERATIONS):
            with record_function("iteration"):
                iterate(engine, batch)
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    found = dict.fromkeys([*KINDS, OTHERS], 0.0)
    for event in profiler.key_averages():
        found[kind_of.get(event.key, OTHERS)] += event.self_cpu_time_total / 1e3 / NUM_ITERATIONS
    return found


def table_of(model: str) -> Table:
    engines = {attention: build(model, attention) for attention in ATTENTIONS}
    batches = {attention: prefilled(engine) for attention, engine in engines.items()}
    rounds: dict[str, list[dict[str, float]]] = {attention: [] for attention in ATTENTIONS}
    for _ in range(NUM_ROUNDS):
        for attention, engine in engines.items():
            rounds[attention].append(milliseconds(engine, batches[attention]))
    for engine in engines.values():
        engine.close()
    table = Table("work", title=f"{model}, {BATCH} decodes after {CONTEXT} tokens")
    for attention in ATTENTIONS:
        table.add_column(f"{attention} [ms]", justify="right")
        table.add_column("share", justify="right")
    middle = {
        name: {kind: median(one[kind] for one in rounds[name]) for kind in rounds[name][0]} for name in ATTENTIONS
    }
    wholes = {name: sum(kinds.values()) for name, kinds in middle.items()}
    for kind in (*KINDS, OTHERS):
        cells = [(middle[name][kind], wholes[name]) for name in ATTENTIONS]
        table.add_row(kind, *[text for ms, whole in cells for text in (f"{ms:.2f}", f"{ms / whole:.0%}")])
    table.add_row("whole", *[text for whole in wholes.values() for text in (f"{whole:.2f}", "")], style="bold")
    return table


def main() -> None:
    console = Console()
    for model in sys.argv[1:] or MODELS:
        console.print(table_of(model))


if __name__ == "__main__":
    main()
