"""All experiments at once: what is written, what is said, and what becomes of one that fails."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tetribench.paper.fig01 import Lengths

Command = Callable[..., int]

FIG01 = "'fig01 task.num_lengths=50'"
FIG13 = "'fig13 task.seeds=[0,1] workload.num_requests=4'"
SCAN = (
    "'sensitivity task.seeds=[0,1] ~axes.workload +axes.workload={LPLD:{workload.num_requests:4}} "
    '~axes.assumption "+axes.assumption={as it is:{},slow:{hardware.overhead_s:x20}}"\''
)


def paper(*experiments: str) -> tuple[str, ...]:
    return "+experiment=paper", f"task.experiments=[{','.join(experiments)}]"


def files(folder: Path) -> dict[str, bytes]:
    """By name; the report without its last line."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    found["report.html"] = re.sub(rb"<footer>.*</footer>", b"", found["report.html"])
    return found


def test_everything_is_written_and_judged(
    tetribench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert tetribench(*paper(FIG01, FIG13, SCAN)) == 0
    shown = capsys.readouterr().out
    assert "1/3 fig01" in shown and "3/3 sensitivity" in shown
    assert re.search(r"\d+ reproduced, \d+ direction only, \d+ not reproduced, \d+ not evaluated", shown)
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    for name in ("fig01", "fig13", "sensitivity"):
        for suffix in (".csv", "_rows.csv", ".svg", ".png"):
            assert (tmp_path / f"{name}{suffix}").stat().st_size > 0
    claims = pd.read_csv(tmp_path / "claims.csv").set_index("id").to_dict("index")
    assert claims["fig13_jct"]["verdict"] in ("reproduced", "direction only", "not reproduced")
    assert (claims["fig11_jct"]["verdict"], claims["fig11_jct"]["note"]) == ("not evaluated", "fig11 was not run")
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    for text in ('id="claims"', 'id="conditions"', 'href="#fig13"', 'id="fig13"', "HPLD: mean TTFT falls by 9 %"):
        assert text in page
    assert "Against its own figure (+10%) ours is" in page or "Against its own figure (+9%) ours is" in page


def test_twice_gives_the_same_files_but_for_a_line(tetribench: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert tetribench(*paper(FIG01, FIG13), f"task.out={tmp_path / name}") == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("error", [ValueError("lengths are broken"), RuntimeError()])
def test_one_that_fails_leaves_the_others(
    error: Exception,
    tetribench: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(self: Lengths, table: pd.DataFrame) -> list[str]:
        raise error

    monkeypatch.setattr(Lengths, "reading", fail)
    assert tetribench(*paper(FIG01, FIG13)) == 1
    reason = str(error) or "RuntimeError"
    assert f"experiment=fig01 failed: {reason}" in capfd.readouterr().err
    assert (tmp_path / "fig13.svg").exists() and not (tmp_path / "fig01.svg").exists()
    assert f"fig01 failed: {reason}" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("fig99", "experiment=fig99: no such option; there are"),
        ("ablation", "task.experiments: ablation draws no figure of its own"),
        ("'fig13 task.seeds=[0]'", "task.seeds=[0]: an interval needs at least 2 different seeds"),
        ("'fig01 task.num_lengths=0'", "task.num_lengths=0: must be at least 1"),
        ("'sensitivity ~axes.assumption'", "sensitivity failed: axes.assumption: must have the label 'as it is'"),
        ("", "task.experiments=[]: name at least one experiment"),
    ],
)
def test_bad_input_is_one_line(
    experiment: str, message: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench(*paper(experiment)) in (1, 2)
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_claim_that_is_wrong_stops_everything(
    tetribench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "claims.yaml").write_text("[{id: mine, kind: comparable}]")
    monkeypatch.setattr("tetribench.study.paper.conf_folder", lambda: tmp_path)
    assert tetribench(*paper(FIG01)) == 2
    assert "claim mine: Object missing required field" in capfd.readouterr().err
