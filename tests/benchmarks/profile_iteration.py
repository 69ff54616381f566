"""Where an iteration's time goes: `python -m tests.benchmarks.profile_iteration`.

An engine of torch's own operations and the one that runs by default compute the same batches, in turns; a table for
each model and batch says how long each kind of work took per iteration, by torch's profiler, which itself takes time
with each operation: shares count. Decodes are not replayed here, as the profiler does not see what a replay calls.
"""

import sys
from collections.abc import Callable, Iterable
from statistics import median

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
from tetribench.engine.hf.runner import HFRunner

MODELS = ("opt_tiny", "llama_tiny")
ENGINES = {
    "torch": ("engine.attention=sdpa", "engine.linear=torch"),
    "default": ("engine.attention=native", "engine.linear=native", "engine.graph_sequences=0"),
}
BATCH, CONTEXT, CHUNK = 64, 512, 512
NUM_ROUNDS, NUM_ITERATIONS = 5, 10
KINDS = {
    "gather keys and values": ("aten::index_select", "aten::index", "aten::gather"),
    "write keys and values": (
        "tetribench::paged_store",
        "aten::index_copy_",
        "aten::index_put_",
        "aten::_index_put_impl_",
        "aten::scatter_",
    ),
    "attention": (
        "tetribench::paged_decode",
        "tetribench::paged_chunks",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::bmm",
        "aten::_softmax",
    ),
    "matrix products": ("tetribench::linear", "aten::addmm", "aten::mm", "aten::linear"),
}
"""Of torch's operations; all others are `OTHERS`."""
OTHERS = "everything else"


def build(model: str, options: Iterable[str]) -> HFRunner:
    register()
    overrides = ["+workload=lpld", "runtime=inline", f"model={model}", "device=cpu", "engine.kv_memory_gib=1", *options]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        setup = Composition(compose("config", overrides), "").setup()
    engine = setup.engine.sized(1).build(WallClock(), None)
    assert isinstance(engine, HFRunner)
    return engine


def iterate(engine: HFRunner, batch: Batch) -> None:
    """A chunk is computed anew each time, a decode is the next one."""
    tokens = engine._step(engine._pack(batch), batch)
    for sequence in batch.decode:
        sequence.num_computed += 1
        sequence.output_ids.append(tokens[sequence.request.id])


def sequence_of(engine: HFRunner, id: int, num_prompt_tokens: int) -> Sequence:
    num_tokens = 1 + NUM_ROUNDS * NUM_ITERATIONS
    num_blocks = ceil_div(num_prompt_tokens + num_tokens, engine.info.block_size)
    request = Request(
        id=id,
        arrival_s=0.0,
        num_prompt_tokens=num_prompt_tokens,
        max_output_tokens=num_tokens,
        prompt_ids=tuple(prompt_ids(id, num_prompt_tokens)),
    )
    return Sequence(request, LengthRange(0, 1), block_ids=list(range(id * num_blocks, (id + 1) * num_blocks)))


def decodes(engine: HFRunner) -> Batch:
    """Sequences that have their prompts' keys, values and first tokens."""
    sequences = []
    for id in range(BATCH):
        sequence = sequence_of(engine, id, CONTEXT)
        batch = Batch(prefill=[PrefillChunk(sequence, 0, CONTEXT)])
        sequence.output_ids.append(engine._step(engine._pack(batch), batch)[id])
        sequence.num_computed = CONTEXT
        sequences.append(sequence)
    return Batch(decode=sequences)


def chunk(engine: HFRunner) -> Batch:
    sequence = sequence_of(engine, 0, CONTEXT + CHUNK)
    before = Batch(prefill=[PrefillChunk(sequence, 0, CONTEXT)])
    engine._step(engine._pack(before), before)
    return Batch(prefill=[PrefillChunk(sequence, CONTEXT, CHUNK)])


BATCHES = {
    f"{BATCH} decodes after {CONTEXT} tokens": decodes,
    f"a chunk of {CHUNK} after {CONTEXT} tokens": chunk,
}


def milliseconds(engine: HFRunner, batch: Batch) -> dict[str, float]:
    """Of each kind of work, in one iteration."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(NUM_ITERATIONS):
            with record_function("iteration"):
                iterate(engine, batch)
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    found = dict.fromkeys([*KINDS, OTHERS], 0.0)
    for event in profiler.key_averages():
        found[kind_of.get(event.key, OTHERS)] += event.self_cpu_time_total / 1e3 / NUM_ITERATIONS
    return found


def table_of(title: str, engines: dict[str, HFRunner], make: Callable[[HFRunner], Batch]) -> Table:
    batches = {name: make(engine) for name, engine in engines.items()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for _ in range(NUM_ROUNDS):
        for name, engine in engines.items():
            rounds[name].append(milliseconds(engine, batches[name]))
    table = Table("work", title=title)
    for name in engines:
        table.add_column(f"{name} [ms]", justify="right")
        table.add_column("share", justify="right")
    middle = {name: {kind: median(one[kind] for one in rounds[name]) for kind in rounds[name][0]} for name in engines}
    wholes = {name: sum(kinds.values()) for name, kinds in middle.items()}
    for kind in (*KINDS, OTHERS):
        cells = [(middle[name][kind], wholes[name]) for name in engines]
        table.add_row(kind, *[text for ms, whole in cells for text in (f"{ms:.2f}", f"{ms / whole:.0%}")])
    table.add_row("whole", *[text for whole in wholes.values() for text in (f"{whole:.2f}", "")], style="bold")
    return table


def main() -> None:
    console = Console()
    for model in sys.argv[1:] or MODELS:
        engines = {name: build(model, options) for name, options in ENGINES.items()}
        for batch, make in BATCHES.items():
            console.print(table_of(f"{model}, {batch}", engines, make))
        for engine in engines.values():
            engine.close()


if __name__ == "__main__":
    main()
