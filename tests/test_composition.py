"""Variants of a configuration."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.profiles import write_profile
from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.experiment import Setup


@pytest.fixture
def composed() -> Composition:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return Composition(compose("config", ["+workload=lpld", "runtime=sim"]), "")


def test_a_factor_multiplies_what_there_is(composed: Composition) -> None:
    scaled = composed.variant({"workload.num_requests": "x0.5", "hardware.overhead_s": "x2"}).setup()
    assert scaled.workload.num_requests == 64  # type: ignore[attr-defined]
    assert scaled.engine.hardware.overhead_s == pytest.approx(2 * composed.setup().engine.hardware.overhead_s)  # type: ignore[attr-defined]


def test_a_factor_needs_a_number(composed: Composition) -> None:
    with pytest.raises(ValueError, match=r"workload\.name=x2: multiplies a number, and the option is lpld"):
        composed.variant({"workload.name": "x2"})


def test_links_of_one_experiment_have_a_speed_each() -> None:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        systems = Composition(compose("config", ["+experiment=fig15"]), "").variant(
            {"systems": ["ts_roce", "ts_nvlink"]}
        )
    links = {name: system.link.name for name, system in systems.setup().systems.items()}  # type: ignore[attr-defined]
    assert links == {"ts_roce": "memory write, at most 25 GB/s", "ts_nvlink": "memory write, at most 300 GB/s"}


def profile(folder: Path, model: str) -> str:
    return write_profile(folder / "profile.json", model=model, chunk_size=384)


def chunk_of(setup: Setup) -> tuple[int, str]:
    """Of the system and of what is written down of it, which must say the same."""
    chunk = setup.systems["tetri"].prefill.chunk  # type: ignore[attr-defined]
    written = setup.resolved().options["system"]["tetri"]["prefill"]["chunk"]
    assert (written["chunk_size"], written["chunk_size_from"]) == (chunk.chunk_size, chunk.chunk_size_from)
    return chunk.chunk_size, chunk.chunk_size_from


@pytest.mark.parametrize("runtime", [["runtime=sim"], ["runtime=process", "engine=hf", "device=cpu"]])
def test_chunk_size_is_what_was_measured(tmp_path: Path, runtime: list[str]) -> None:
    register()
    local = ["hardware=local", f"hardware.path={profile(tmp_path, 'opt_tiny')}"]
    found = {}
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for name, options in {
            "measured": local,
            "given": [*local, "prefill.chunk.chunk_size=64"],
            "of another model": [*local, "model=llama_tiny"],
            "not measured": [],
        }.items():
            found[name] = chunk_of(Composition(compose("config", ["+workload=lpld", *runtime, *options]), "").setup())
    assert found["measured"] == (384, "the profile local cpu, where throughput stops growing")
    assert found["given"] == (64, "given")
    by_default = 512, "the paper: none was measured with this model on this hardware"
    assert found["of another model"] == found["not measured"] == by_default


def test_a_measured_chunk_size_goes_with_its_hardware(tmp_path: Path) -> None:
    """What was settled for one variant does not stay with the next."""
    register()
    local = ["hardware=local", f"hardware.path={profile(tmp_path, 'opt_tiny')}"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = Composition(compose("config", ["+workload=lpld", "runtime=sim", *local]), "")
    assert chunk_of(composed.setup())[0] == 384
    assert chunk_of(composed.variant({"model.name": "another"}).setup())[0] == 512
