"""The learned length predictor from the command line, and everything about predictors that is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run_folders import slot
from tests.training import tiny
from tetribench import experiment

Command = Callable[..., int]


class Words:
    def encode(self, text: str, chat: bool) -> list[int]:
        return [len(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        raise AssertionError("the texts are known")


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(experiment, "_tokenizer", lambda setup: Words())
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"please {index} short story"}) for index in range(12)))
    return ["+workload=text", f"workload.path={path}", "workload.num_requests=12", "workload.max_output_tokens=25"]


@pytest.mark.parametrize("hardware", ["v100_tp2", "cpu_core"])
def test_a_checkpoint_predicts_in_virtual_time(
    tetribench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: list[str], hardware: str
) -> None:
    learned = ["prefill/predict=learned", f"prefill.predict.checkpoint={tiny.checkpoint(tmp_path / 'checkpoint')}"]
    sim = ["runtime=sim", f"hardware={hardware}", "name=run"]
    assert tetribench(*text, *learned, *sim) == 0
    served = slot(tmp_path / "run", "tetri")
    manifest = json.loads((served / "manifest.json").read_text())
    charged = "charged as OPT-125M" if hardware == "v100_tp2" else "takes no time"
    assert manifest["instances"]["prefill-0"]["predictor"] == f"learned, granularity 10, {charged}"
    assert f"tetri: length predictor learned, granularity 10, {charged}" in capsys.readouterr().out
    events = (served / "events.jsonl").read_text().splitlines()
    ranges = {
        (one["low"], one["high"]) for line in events if '"predicted"' in line for one in [json.loads(line)["details"]]
    }
    assert ranges <= {(0, 10), (10, 20), (20, 30)} and ranges
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["systems"]["tetri"]
    assert metrics["resources"]["prediction_accuracy"] in (0.0, 1.0)
    assert (metrics["metrics"]["overall"]["predict_s"]["mean"] > 0) is (hardware == "v100_tp2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["prefill.predict.granularity=0"], "prefill.predict.granularity=0: must be at least 1"),
        (["prefill.predict.accuracy=1.5"], "prefill.predict.accuracy=1.5: must be between 0 and 1"),
        (
            ["prefill/predict=oracle", "prefill.predict.granularity=0"],
            "prefill.predict.granularity=0: must be at least 1",
        ),
        (["prefill.predict_mode.batch_size=0"], "prefill.predict_mode.batch_size=0: must be at least 1"),
        (["prefill/predict=learned", "prefill.predict.checkpoint=/nowhere"], "there is no such directory"),
        (["prefill/predict=learned"], "prefill.predict.checkpoint"),
        (["prefill/predict=learned", "prefill.predict.checkpoint={checkpoint}"], "these requests have none"),
    ],
)
@pytest.mark.parametrize("runtime", ["sim", "inline"])
def test_bad_input_is_answered_in_one_line_before_anything_starts(
    tetribench: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
    runtime: str,
) -> None:
    checkpoint = tiny.checkpoint(tmp_path / "checkpoint")
    given = [option.format(checkpoint=checkpoint) for option in options]
    assert tetribench("+workload=lpld", f"runtime={runtime}", "name=run", *given) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not (tmp_path / "run").exists()
