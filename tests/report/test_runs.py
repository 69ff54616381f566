"""What a run folder must hold to be read, and what is read from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_folders import slot
from tetribench.report.runs import load_run

MakeRun = Callable[..., Path]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(path: Path, **arguments: bool) -> str:
    with pytest.raises(ValueError) as caught:
        load_run(path, **arguments)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_a_complete_run_is_read_and_measured(run_dir: Path) -> None:
    run = load_run(run_dir)
    assert run.is_complete and run.is_virtual
    assert run.baseline == "vllm_like" and run.others == ["tetri"]
    assert [result.accounting.finished for result in run.results] == [24, 24]
    assert run.facts.slo.ttft_s == 2.0
    assert set(run.manifests["tetri"].instances) == {"prefill_0", "decode_0"}
    assert run.manifests["tetri"].options["chunk"] == 512
    assert run.environment["commit"] == "0123abc"
    assert run.notes == ["lengths drawn from a lognormal distribution"]
    assert "seed: 0" in run.config_yaml


@pytest.mark.parametrize("missing", ["run.json", "status.json"])
def test_another_folder_is_refused(run_dir: Path, missing: str) -> None:
    (run_dir / missing).unlink()
    assert f"not a run folder (it has no {missing})" in refusal(run_dir)


def test_another_schema_version_is_refused_whatever_else_it_holds(run_dir: Path) -> None:
    (run_dir / "run.json").write_text('{"schema_version": 2}')
    assert "schema version 2, this program reads 4" in refusal(run_dir)


@pytest.mark.parametrize("content", ["{", '{"schema_version": 4, "name": 3}', "[]"])
def test_a_damaged_file_is_refused(run_dir: Path, content: str) -> None:
    (run_dir / "run.json").write_text(content)
    assert "run.json: damaged" in refusal(run_dir)


def test_an_illegal_slo_is_refused(run_dir: Path) -> None:
    change(run_dir / "run.json", slo={"ttft_s": -1.0, "tpot_s": None})
    assert "slo.ttft_s=-1.0" in refusal(run_dir)


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_did_not_complete_is_refused_unless_allowed(run_dir: Path, state: str) -> None:
    change(run_dir / "status.json", state=state, reason="out of memory")
    assert f"the run is {state} (out of memory)" in refusal(run_dir)
    assert not load_run(run_dir, allow_partial=True).is_complete


def test_a_complete_run_needs_the_log_of_every_system(run_dir: Path) -> None:
    (slot(run_dir, "tetri") / "events.jsonl").write_text("")
    assert "1-tetri/events.jsonl is missing or has no request" in refusal(run_dir)


def test_a_complete_run_needs_the_end_of_every_serving(run_dir: Path) -> None:
    (slot(run_dir, "tetri") / "slot.json").unlink()
    assert "1-tetri/slot.json is missing; the serving did not end" in refusal(run_dir)


def test_a_serving_that_was_broken_off_is_not_averaged_with_whole_ones(make_run: MakeRun) -> None:
    """Of the requests of its second serving tetri finished those that are fast."""
    path = make_run(num_repeats=2)
    change(path / "status.json", state="interrupted")
    broken_off = slot(path, "tetri", repeat=1)
    lines = (broken_off / "events.jsonl").read_bytes().splitlines(keepends=True)
    (broken_off / "events.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    (broken_off / "slot.json").unlink()
    run = load_run(path, allow_partial=True)
    assert [one[:2] for one in run.served] == [(0, 0), (0, 1), (1, 0)]
    assert "repeats/1/1-tetri was broken off and is left out." in run.notes
    jct = next(row for row in run.compared if row.headline.name == "mean_jct_s")
    assert jct.values["tetri"] == run.results[1].summary["metrics"]["overall"]["jct_s"]["mean"]


def test_requests_of_another_file_are_refused(make_run: MakeRun) -> None:
    """Both systems served the same requests, and not those that the run says."""
    first, second = make_run("first"), make_run("second", seed=1)
    (first / "repeats/0/requests.jsonl").write_bytes((second / "repeats/0/requests.jsonl").read_bytes())
    assert "0-vllm_like: request 0 is not the one in requests.jsonl" in refusal(first)


def test_a_complete_run_needs_its_baseline(make_run: MakeRun) -> None:
    assert "baseline=sarathi_like is not among the systems" in refusal(make_run(baseline="sarathi_like"))


def test_a_partial_run_is_read_as_far_as_it_came(run_dir: Path) -> None:
    change(run_dir / "status.json", state="interrupted")
    (slot(run_dir, "vllm_like") / "events.jsonl").unlink()
    run = load_run(run_dir, allow_partial=True)
    assert [result.system for result in run.results] == ["tetri"]
    assert run.baseline == "tetri"
    assert any("vllm_like was not measured" in note for note in run.notes)
    assert any("ratios are to tetri" in note for note in run.notes)


def test_a_partial_run_without_any_request_is_refused(run_dir: Path) -> None:
    change(run_dir / "status.json", state="failed")
    for log in run_dir.glob("repeats/*/*/events.jsonl"):
        log.unlink()
    assert "no system was measured" in refusal(run_dir, allow_partial=True)


def test_a_real_runtime_is_real_time(make_run: MakeRun) -> None:
    run = load_run(make_run(runtime="process"))
    assert not run.is_virtual
    assert run.time_kind == "real time (process)"
