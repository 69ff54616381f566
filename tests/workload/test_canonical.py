"""The request sets in `workloads/` are what their options draw. Run as a program, this file writes them anew."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tetribench.workload import files
from tetribench.workload.arrivals import AtOnce
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.generate import generate
from tetribench.workload.lengths import LengthClass
from tetribench.workload.request_set import RequestSet

ROOT = Path(__file__).parents[2]
NAMES = ["light_prefill", "heavy_prefill", "light_decode", "heavy_decode", "lpld", "lphd", "hpld", "hphd", "mixed"]


def options_of(name: str) -> dict[str, Any]:
    options: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "workload" / f"{name}.yaml").read_text())
    assert options.pop("defaults") == ["/schema/workload/class@_here_", {"/arrivals@arrivals": "at_once"}]
    return options


def draw(name: str) -> RequestSet:
    options = options_of(name)
    classes: dict[str, Any] = {key: LengthClass[options.pop(key)] for key in ("prompt", "output") if key in options}
    return generate(ClassWorkload(arrivals=AtOnce(), **classes, **options), seed=0, max_context_tokens=2048)


@pytest.mark.parametrize("name", NAMES)
def test_drawing_again_gives_the_same_file(tmp_path: Path, name: str) -> None:
    drawn = draw(name)
    files.write(drawn, tmp_path / "again.jsonl")
    kept = ROOT / "workloads" / f"{name}.jsonl"
    assert (tmp_path / "again.jsonl").read_bytes() == kept.read_bytes()
    assert drawn.name == name
    readme = (ROOT / "workloads" / "README.md").read_text()
    assert f"| [{name}]({name}.jsonl) | {len(drawn.requests)} |" in readme
    assert drawn.fingerprint() in readme


def test_there_are_no_other_files() -> None:
    assert sorted(path.stem for path in (ROOT / "workloads").glob("*.jsonl")) == sorted(NAMES)


if __name__ == "__main__":
    for name in NAMES:
        files.write(draw(name), ROOT / "workloads" / f"{name}.jsonl")
