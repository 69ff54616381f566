import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from tests.support.engine import CheckingFactory
from tests.support.factories import TroubleFactory, raises
from tetribench import experiment
from tetribench.drive.loadgen import OpenLoop
from tetribench.engine.model import Model
from tetribench.experiment import Resolved, Setup
from tetribench.instance.launch import InstanceFailed
from tetribench.instance.runtime import Inline, Sim
from tetribench.metrics.limits import Limits
from tetribench.metrics.price import Price
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo
from tetribench.repeats import Repeats
from tetribench.track import NoTracking
from tetribench.training.collect import CollectLengths
from tetribench.training.lengths import read_lengths
from tetribench.workload.arrivals import AtOnce
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.text import TextWorkload


class Words:
    def encode(self, text: str, chat: bool) -> list[int]:
        return [sum(map(ord, word)) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Six prompts; the model stops after 1, 2, ... tokens, and at 4 at the latest."""
    monkeypatch.setattr(experiment, "_tokenizer", lambda setup: Words())
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"prompt number {index}"}) for index in range(6)))
    return Setup(
        workload_name="text",
        workload=TextWorkload(path=str(path), arrivals=AtOnce(), num_requests=6, max_output_tokens=4),
        systems={},
        model=Model(name="m"),
        engine=CheckingFactory(stops={index: index for index in range(6)}),
        runtime=Inline(),
        drive=OpenLoop(),
        track=NoTracking(),
        seed=0,
        repeats=Repeats(1),
        aa_band=True,
        verdict=Rule(),
        limits=Limits(),
        natural_stop=None,
        stall_timeout_s=10.0,
        slo=Slo(),
        cost=Price(),
        out=tmp_path,
        name=None,
        resume=False,
        show_progress=False,
        resolved=lambda: Resolved({}, ""),
        command="",
        overrides=[],
    )


@pytest.fixture
def collect(tmp_path: Path) -> Callable[[Setup], None]:
    task = CollectLengths(out=str(tmp_path / "lengths.jsonl"), batch_size=4)
    return lambda setup: task.execute(cast(Any, SimpleNamespace(setup=lambda: setup)), Console(quiet=True))


def collected(tmp_path: Path) -> list[tuple[str, int, bool]]:
    lengths = read_lengths(tmp_path / "lengths.jsonl")
    assert {(one.source, one.model, one.num_prompt_tokens, one.max_output_tokens) for one in lengths} == {
        ("prompts", "m", 3, 4)
    }
    return sorted((one.prompt, one.num_output_tokens, one.was_capped) for one in lengths)


def expected(setup: Setup) -> list[tuple[str, int, bool]]:
    texts = setup.workload.draw(0, Words()).texts
    return sorted((texts[index], min(index + 1, 4), index >= 3) for index in range(6))


def test_every_answers_length_is_written(setup: Setup, collect: Any, tmp_path: Path) -> None:
    collect(setup)
    assert collected(tmp_path) == expected(setup)


def test_an_interrupted_collection_goes_on(setup: Setup, collect: Any, tmp_path: Path) -> None:
    stops = {index: index for index in range(6)}
    with pytest.raises(InstanceFailed, match="fell off the bus"):
        collect(replace(setup, engine=TroubleFactory(raises, at=4, stops=stops)))
    before = collected(tmp_path)
    assert 0 < len(before) < 6
    path = tmp_path / "lengths.jsonl"
    path.write_bytes(path.read_bytes() + b'{"prompt": "half a li')
    collect(setup)
    assert collected(tmp_path) == expected(setup)
    again = CheckingFactory()
    collect(replace(setup, engine=again))
    assert not again.engines


def test_lengths_of_two_models_are_not_mixed(setup: Setup, collect: Any) -> None:
    collect(setup)
    with pytest.raises(ValueError, match="choose another file"):
        collect(replace(setup, model=Model(name="other")))


def test_what_has_no_real_lengths_is_refused(setup: Setup, collect: Any) -> None:
    with pytest.raises(ValueError, match="runtime=sim: only a real model has response lengths"):
        collect(replace(setup, runtime=Sim()))
    drawn = ClassWorkload(name="lpld", arrivals=AtOnce(), num_requests=2)
    with pytest.raises(ValueError, match="needs real prompts"):
        collect(replace(setup, workload=drawn))
    with pytest.raises(ValueError, match=r"task.batch_size=0: must be at least 1"):
        CollectLengths(out="x", batch_size=0)
