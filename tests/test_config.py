"""Every option under `conf/` composes and builds; schemas follow the classes' signatures."""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.profiles import write_profile
from tests.training import tiny
from tetribench.config import COMPONENTS, build, conf_folder, load_class, register, schema_of
from tetribench.config_errors import refuse_added_keys

OPTION_FILES = sorted(
    path.relative_to(conf_folder()).with_suffix("").as_posix() for path in conf_folder().glob("*/**/*.yaml")
)

NEEDS = {
    "workload/trace": ["workload.path={trace}"],
    "workload/text": ["workload.path={text}"],
    "workload/file": ["workload.path={requests}"],
    "arrivals/constant": ["workload.request_rate=1"],
    "arrivals/poisson": ["workload.request_rate=1"],
    "arrivals/gamma": ["workload.request_rate=1"],
    "prefill/predict/learned": ["prefill.predict.checkpoint={checkpoint}"],
    "task/generate": ["task.out=x"],
    "task/rerun": ["task.run=x"],
    "task/run_regret": ["task.run=x"],
    "task/fit": ["task.profile=v100_tp2"],
    "experiment/fidelity": ["hardware.path={profile}"],
    **{f"control/flip/{name}": ["system.tetri.num_decode=2"] for name in ("idle", "low_load", "queue_ratio")},
    "task/collect_lengths": ["task.out=x"],
    "task/train_predictor": ["task.lengths={text}"],
    "workload/text_mix": ["workload.paths=[{text}]"],
}
"""Values that an option cannot do without."""

STUDIES = {
    "study": "fig15",
    "study_chosen": "attribution",
    "study_loads": "rates",
    "interference": "interference",
    "regret": "regret",
    "lengths": "fig01",
    "requests": "table1",
    "steps": "fig02",
    "sensitivity": "sensitivity",
    "paper": "paper",
}
"""An experiment of each kind: these tasks need a figure, or experiments."""


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
    text = tmp_path / "prompts.txt"
    text.write_text("Hello?\n")
    requests = conf_folder().parent / "workloads" / "lpld.jsonl"
    checkpoint = tiny.checkpoint(tmp_path / "checkpoint")
    profile = write_profile(tmp_path / "profile.json")
    paths = {"trace": trace, "text": text, "requests": requests, "checkpoint": checkpoint, "profile": profile}
    return {name: str(path) for name, path in paths.items()}


def overrides_for(option: str, files: dict[str, str]) -> list[str]:
    group, _, name = option.rpartition("/")
    needs = [need.format(**files) for need in NEEDS.get(option, [])]
    match group:
        case "workload":
            return [f"+workload={name}", *needs]
        case "arrivals":
            return ["+workload=lpld", f"arrivals@workload.arrivals={name}", *needs]
        case "system":
            return ["+workload=lpld", f"systems=[{name}]", *needs]
        case "task" if name in STUDIES:
            return [f"+experiment={STUDIES[name]}"]
        case "experiment":
            return [f"+experiment={name}", *needs]
        case _:
            return ["+workload=lpld", f"{group}={name}", *needs]


def nodes(config: DictConfig) -> list[Any]:
    """Every part of the configuration that is built by itself."""
    parts = [config.workload, config.engine, config.runtime, config.drive, config.track, config.task]
    return parts + list(config.system.values())


@pytest.mark.parametrize("option", OPTION_FILES)
def test_every_option_composes_and_builds(option: str, files: dict[str, str]) -> None:
    config = compose("config", overrides_for(option, files))
    refuse_added_keys(config)
    for node in nodes(config):
        assert build(node).__class__.__name__ == node._target_.rpartition(".")[2]


@pytest.mark.parametrize("option", OPTION_FILES)
def test_every_option_says_what_it_is(option: str) -> None:
    lines = (conf_folder() / f"{option}.yaml").read_text().splitlines()
    first = lines[lines[0] == "# @package _global_"]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("path", COMPONENTS.values(), ids=COMPONENTS.keys())
def test_schemas_have_the_constructor_parameters(path: str) -> None:
    cls = load_class(path)
    parameters = set() if cls.__init__ is object.__init__ else set(typing.get_type_hints(cls.__init__)) - {"return"}
    assert set(schema_of(path).__dataclass_fields__) == {"_target_", *parameters}


def test_every_component_can_be_chosen() -> None:
    text = "".join((conf_folder() / f"{option}.yaml").read_text() for option in OPTION_FILES)
    assert not [option for option in COMPONENTS if f"/schema/{option}@" not in text]


def test_options_are_used_by_the_systems() -> None:
    config = compose("config", ["+workload=lpld", "prefill/order=ljf", "prefill.order.window=3", "kv/link=ts_roce"])
    tetri = build(config.system.tetri)
    assert type(tetri.prefill.order).__name__ == "LJF"
    assert tetri.prefill.order.window == 3
    assert tetri.link.speed.bandwidth_bytes_per_s == 25e9


def test_any_medium_takes_any_speed() -> None:
    config = compose("config", ["+workload=lpld", "kv/link=tcp", "kv/speed=ts_nvlink", "kv.link.timeout_s=3"])
    link = build(config.system.tetri).link
    assert (link.name, link.timeout_s) == ("tcp send, at most 300 GB/s", 3.0)
    renamed = build(compose("config", ["+workload=lpld", "kv/link=ts_roce"]).system.tetri).link
    spelt_out = build(compose("config", ["+workload=lpld", "kv/link=memory", "kv/speed=ts_roce"]).system.tetri).link
    assert renamed.name == spelt_out.name == "memory write, at most 25 GB/s"


def test_a_variant_differs_from_the_system_in_its_own_mechanism_only() -> None:
    config = compose("config", ["+experiment=ablation", "prefill.order.window=3"])
    full, variant = build(config.system.tetri), build(config.system.tetri_random)
    assert type(variant.prefill.dispatch).__name__ == "RandomDispatch"
    assert type(full.prefill.dispatch).__name__ == "PowerOfTwo"
    assert variant.prefill.order.window == full.prefill.order.window == 3
    assert variant.num_instances == full.num_instances


def test_root_options_reach_the_engine() -> None:
    config = compose("config", ["+workload=lpld", "seed=7", "device=cpu"])
    engine = build(config.engine)
    assert engine.seed == 7
    assert engine.device.value == "cpu"


@pytest.mark.parametrize("estimate", ["low", "mean", "high"])
@pytest.mark.parametrize("admit", ["reserve_static", "reserve_dynamic"])
def test_every_point_of_a_predicted_range_can_be_chosen(admit: str, estimate: str) -> None:
    options = [f"decode/admit={admit}", f"decode.admit.estimate={estimate}", f"prefill.dispatch.estimate={estimate}"]
    tetri = build(compose("config", ["+workload=lpld", *options]).system.tetri)
    assert tetri.decode.admit.estimate.value == tetri.prefill.dispatch.estimate.value == estimate


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_preemption_can_be_chosen(preemption: str) -> None:
    tetri = build(compose("config", ["+workload=lpld", f"decode.preemption={preemption}"]).system.tetri)
    assert tetri.decode.preemption.value == preemption


def test_a_workloads_halves_can_have_an_sla_class_each() -> None:
    options = ["workload.before.sla_class=interactive", "workload.after.sla_class=batch"]
    workload = build(compose("config", ["+workload=shift", *options]).workload)
    assert (workload.before.sla_class, workload.after.sla_class) == ("interactive", "batch")
    assert build(compose("config", ["+workload=lpld"]).workload).sla_class == "default"
