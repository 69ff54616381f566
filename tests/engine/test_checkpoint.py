import json
from pathlib import Path
from typing import Any

import pytest

from tests.training import tiny
from tetribench.core.sequence import LengthRange
from tetribench.engine.checkpoint import bucket_labels, read_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny.checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_says_its_buckets(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    assert (checkpoint.granularity, checkpoint.num_buckets, checkpoint.max_prompt_tokens) == (10, 3, 16)
    assert checkpoint.range_of(2) == LengthRange(20, 30)
    assert bucket_labels(200, 2) == ["0-199", "200-399"]


def change(path: Path, **facts: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **facts}))


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("granularity", [0, None, -1])
def test_a_granularity_is_needed(path: Path, granularity: int | None) -> None:
    change(path, granularity=granularity)
    assert "must have a granularity and max_prompt_tokens of at least 1" in refused(path)


def test_buckets_must_be_those_of_the_granularity(path: Path) -> None:
    change(path, granularity=20)
    assert refused(path).endswith("its id2label (0-9, 10-19, 20-29) is not the buckets of its granularity 20")


def test_weights_must_have_the_buckets_of_the_config(path: Path) -> None:
    change(path, id2label=dict(enumerate(bucket_labels(10, 4))))
    assert refused(path).endswith("its config has 4 buckets, its weights have 3")


def test_missing_files_are_named(path: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").endswith("there is no such directory")
    assert refused(tmp_path).endswith("there is no config.json in this directory")
    (path / "model.safetensors").unlink()
    assert refused(path).endswith("there is no model.safetensors in this directory")


def test_another_kind_of_model_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tetribench.engine.checkpoint.HEADS", ("lm_head.weight",))
    assert refused(path).endswith("its weights have no classifier; must be a sequence classifier")
