"""Variants of a configuration."""

import pytest
from hydra import compose, initialize_config_dir

from tetribench.composition import Composition
from tetribench.config import conf_folder, register


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
