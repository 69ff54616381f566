"""An INVALID run: stamped on page, terminal and figures, without a verdict, never beside other runs."""

import json
from collections.abc import Callable
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.run_folders import slot
from tetribench.metrics.client_error import ClientError, StatisticError
from tetribench.metrics.limits import Limits
from tetribench.metrics.paired import Outcome
from tetribench.metrics.validity import Code
from tetribench.report import validity
from tetribench.report.figures import run_subtitle
from tetribench.report.quantities import DASH
from tetribench.report.runs import Run, load_run
from tetribench.report.tables import Table
from tetribench.report.terminal import comparison
from tetribench.report.verdict import verdict_sentences
from tetribench.report.write import write_report, write_side_by_side

MakeRun = Callable[..., Path]

CLIENT = ClientError(
    ttft=StatisticError(mean_s=0.0012, p99_s=0.0034, num_samples=120),
    itl=StatisticError(mean_s=-0.0000001, p99_s=None, num_samples=50),
    num_requests=120,
    num_streams=64,
    tokens_per_s=6400.0,
    asked_per_s=12.5,
    delivered_per_s=12.25,
    mean_send_delay_s=0.0002,
    max_send_delay_s=0.0009,
)


@pytest.fixture
def disturbed(make_run: MakeRun) -> Path:
    """A run in real time beside which others worked, in the first of its servings."""
    path = make_run("disturbed", runtime="process", num_repeats=3, limits=asdict(Limits(late_share=None)))
    machine = {"machine": {"num_cores": 2, "other_cores": 1.25}}
    (path / "repeats" / "0" / "0-vllm_like" / "slot.json").write_text(json.dumps(machine))
    (path / "client.json").write_text(json.dumps(asdict(CLIENT)))
    return path


def texts(table: Table) -> list[list[str]]:
    return [[*row.heads, *(cell.text for cell in row.cells)] for row in table.rows]


def test_it_is_stamped_everywhere_and_gets_no_verdict(disturbed: Path) -> None:
    run = write_report(disturbed)
    assert run.validity.codes == [Code.MACHINE_DISTURBED]
    stamp = "INVALID (machine_disturbed)"
    assert run_subtitle(run).startswith(stamp)
    shown = StringIO()
    Console(file=shown, width=80).print(comparison(run))
    assert shown.getvalue().startswith(stamp)
    page = (disturbed / "report.html").read_text()
    assert "repeat 0, slot 0, vllm_like: other programs took 1.25 of 2 cores" in page
    assert verdict_sentences(run) == [f"No verdict: the run is {stamp}."]
    assert f"No verdict: the run is {stamp}." in page
    outcomes = {ratio.outcome for row in run.compared for ratio in row.ratios.values()}
    assert outcomes == {Outcome.UNDECIDED}


def test_every_figure_of_an_invalid_run_is_marked_and_no_other(
    disturbed: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tetribench.report import figures

    marked: list[str] = []
    monkeypatch.setattr(figures, "mark", lambda figure, text: marked.append(text))
    write_report(run_dir)
    assert marked == []
    num_figures = len(list((write_report(disturbed).path / "figures").glob("*.svg")))
    assert marked == ["INVALID"] * num_figures and num_figures >= 3


def test_a_valid_run_is_not_stamped(run_dir: Path) -> None:
    run = write_report(run_dir)
    assert run.validity.is_valid
    assert not run_subtitle(run).startswith("INVALID")
    assert "INVALID" not in (run_dir / "report.html").read_text()


def test_it_is_refused_beside_other_runs(disturbed: Path, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the run is INVALID \(machine_disturbed\); only valid runs are compared"):
        write_side_by_side([run_dir, disturbed], tmp_path / "side")
    assert not (tmp_path / "side").exists()


def test_the_checks_say_what_was_found_and_what_was_not_looked_at(disturbed: Path) -> None:
    run = load_run(disturbed)
    found = {code: text for code, _, text in texts(validity.check_table(run))}
    assert found.keys() == set(Code)
    assert found[Code.MACHINE_DISTURBED].startswith("INVALID. repeat 0, slot 0, vllm_like: other programs took 1.25")
    assert found[Code.LATE_SENDS] == "no limit (validity.late_share=null)"
    assert found[Code.CLOCKS_UNBOUNDED] == found[Code.CLIENT_ERROR] == "kept"


def test_in_virtual_time_the_page_says_that_there_is_no_client(run_dir: Path) -> None:
    run = load_run(run_dir)
    found = {code: text for code, _, text in texts(validity.check_table(run))}
    assert found[Code.CLIENT_ERROR] == "virtual time: no client"
    assert found[Code.FAILURES] == found[Code.WRONG_LENGTHS] == "kept"
    assert validity.client_rows(run) == [] and validity.machine_table(run).rows == []


def test_the_client_is_shown_with_what_it_adds(disturbed: Path) -> None:
    rows = dict(validity.client_rows(load_run(disturbed)))
    assert rows["added to TTFT"] == "1.20 ms to the mean, 3.40 ms to p99"
    assert rows["added to ITL"] == "0.00 ms to the mean; 50 samples are too few for p99"
    assert rows["requests/s asked and delivered"] == "12.500 and 12.250"
    assert rows["load"] == "120 requests, 64 at once, 6,400 tokens/s"


def test_every_serving_has_its_audit(disturbed: Path) -> None:
    run = load_run(disturbed)
    servings = [("0", "0 vllm_like"), ("0", "1 tetri"), ("1", "0 vllm_like"), ("1", "1 tetri")]
    for table in (validity.arrival_table(run), validity.token_table(run), validity.machine_table(run)):
        assert [row.heads for row in table.rows][:4] == servings
    (first, *_) = texts(validity.arrival_table(run))
    assert first[2] == "24 / 24" and first[6].partition(",")[0] != DASH
    (machine, *_) = texts(validity.machine_table(run))
    assert machine[2] == "1.25"
    assert "Stop tokens are ignored" in validity.token_table(run).note
    tokens = texts(validity.token_table(run))[0]
    assert tokens[3] == tokens[5] and tokens[4] == DASH and tokens[6] == tokens[7]


def test_a_closed_loop_and_requests_at_one_moment_have_no_rate(make_run: MakeRun) -> None:
    run = load_run(make_run(concurrency=4, arrivals=None))
    (first, *_) = texts(validity.arrival_table(run))
    assert first[3].startswith(f"{DASH} / ") and first[7].startswith("4")
    rows = dict(validity.client_rows(load_run_with(make_run, asked_per_s=None, delivered_per_s=None)))
    assert rows["requests/s asked and delivered"] == "all at one moment"


def load_run_with(make_run: MakeRun, **changes: Any) -> Run:
    path = make_run("other", runtime="process")
    (path / "client.json").write_text(json.dumps(asdict(CLIENT) | changes))
    return load_run(path)


def test_percentiles_that_were_left_out_are_named(run_dir: Path) -> None:
    assert validity.left_out(load_run(run_dir).pooled).startswith("Left out for too few samples: p99 of TTFT")


def test_everything_is_on_disk_too(disturbed: Path) -> None:
    write_report(disturbed)
    document = json.loads((disturbed / "validity.json").read_text())
    assert document["is_valid"] is False and document["codes"] == ["machine_disturbed"]
    assert document["reasons"][0]["where"] == "repeat 0, slot 0, vllm_like"
    assert document["client"]["num_streams"] == 64
    assert len(document["slots"]) == 6
    assert document["slots"][0]["audit"]["tokens"]["num_wrong"] == 0
    assert document["slots"][0]["machine"] == {"num_cores": 2, "other_cores": 1.25}


def test_without_its_requests_a_run_cannot_be_judged(run_dir: Path) -> None:
    (run_dir / "repeats" / "0" / "requests.jsonl").unlink()
    with pytest.raises(ValueError, match=r"requests\.jsonl: is missing"):
        load_run(run_dir)


def test_a_serving_that_was_broken_off_has_no_machine(make_run: MakeRun) -> None:
    path = make_run(runtime="process")
    (slot(path, "tetri") / "slot.json").unlink()
    (path / "status.json").write_text('{"state": "interrupted"}')
    assert "/proc/stat" in load_run(path, allow_partial=True).validity.unchecked[Code.MACHINE_DISTURBED]
