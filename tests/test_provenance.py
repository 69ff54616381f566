"""What the machine tells of itself, and what it does not."""

import os
from pathlib import Path

import pytest

from tetribench import provenance
from tetribench.provenance import environment


def write_core(root: Path, core: int, **files: str) -> None:
    folder = root / f"cpu{core}" / "cpufreq"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process may use cores 1 and 2; where what they tell is read from."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2})
    monkeypatch.setattr(provenance, "_CPU", tmp_path)
    return tmp_path


def test_the_slowest_of_ones_own_cores_is_told(cores: Path) -> None:
    write_core(cores, 0, scaling_governor="powersave", scaling_cur_freq="800000", cpuinfo_max_freq="1000000")
    write_core(cores, 1, scaling_governor="performance", scaling_cur_freq="3100000", cpuinfo_max_freq="3500000")
    write_core(cores, 2, scaling_governor="performance", scaling_cur_freq="2900400", cpuinfo_max_freq="3600000")
    machine = environment()["machine"]
    assert (machine["governor"], machine["clock_now_mhz"], machine["clock_max_mhz"]) == ("performance", 2900, 3500)


def test_cores_with_different_governors(cores: Path) -> None:
    for core, governor in ((1, "performance"), (2, "powersave")):
        write_core(cores, core, scaling_governor=governor)
    assert environment()["machine"]["governor"] == "performance, powersave"


def test_what_the_machine_does_not_tell_is_none(cores: Path) -> None:
    machine = environment()["machine"]
    assert [machine[name] for name in ("governor", "clock_now_mhz", "clock_max_mhz")] == [None, None, None]


def test_the_load_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.004, 0.5, 0.25))
    assert environment()["machine"]["load_average_before"] == [1.0, 0.5, 0.25]
