"""The benchmarks' own machinery, without running one for long: rows, rates, and what is kept of tests that fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import bench_clients, bench_end_to_end, bench_engine, bench_forward, bench_links, bench_loadgen
from tests.benchmarks.offline.cases import Case, Course, Work
from tests.support.interpreter import environment
from tetribench.config import conf_folder
from tetribench.core.events import Event, EventKind
from tetribench.report.marks import load_marks, read_outcomes

ROOT = Path(__file__).parents[1]


def test_benchmarks_and_marks_have_the_same_rows() -> None:
    marks = load_marks(conf_folder() / "marks.yaml")
    parametrised = {"bench_engine.py": bench_engine.compared(), "bench_links.py": bench_links.compared()}
    rows = {file: {getattr(one, "id", None) for one in parameters} for file, parameters in parametrised.items()}
    rows["bench_forward.py"] = {bench_forward.ROW}
    rows["bench_loadgen.py"] = {bench_loadgen.LATENESS, bench_loadgen.LOST}
    rows["bench_clients.py"] = {
        *(bench_clients.MEAN_64, bench_clients.P99_64, bench_clients.MEAN_256, bench_clients.P99_256),
    }
    rows["bench_end_to_end.py"] = {
        f"end to end, {workload}, {words}"
        for workload in bench_end_to_end.CLASSES
        for words in bench_end_to_end.METRICS.values()
    }
    for file, own in rows.items():
        assert {mark.row for mark in marks if mark.benchmark == file} == own


def test_marks_name_benchmarks_that_exist() -> None:
    folder = ROOT / "tests" / "benchmarks"
    assert all((folder / mark.benchmark).is_file() for mark in load_marks(conf_folder() / "marks.yaml"))


def test_decodes_are_counted_while_all_sequences_decode() -> None:
    """The first has its first token at 1 and its last at 42, the second at 10 and 60: one a second each."""
    course = Course(0.0, [], [[float(time) for time in range(1, 43)], [float(time) for time in range(10, 61)]])
    assert Case("", "", 2048, Work(2, 8, 50)).rate(course) == pytest.approx(2.0)


def test_a_prompts_last_chunk_is_timed_from_the_end_of_the_iteration_before() -> None:
    """But for the first prompt's."""
    after = Case("", "", 256, Work(3, 512, 1), chunk=256)
    assert after.rate(Course(0.0, [7.0, 9.0, 9.5, 12.5, 13.0, 18.0], [])) == pytest.approx(2 * 256 / (3.0 + 5.0))
    first = Case("", "", 256, Work(3, 256, 1), chunk=256)
    assert first.rate(Course(1.0, [9.0, 10.0, 13.0], [])) == pytest.approx(2 * 256 / (1.0 + 3.0))


def test_the_models_share_is_of_whole_iterations() -> None:
    """Of three iterations of decodes the first follows a chunk: it is left out."""

    def iteration(time_s: float, **details: object) -> Event:
        return Event(time_s, EventKind.ITERATION, "colocated-0", (), {"num_decode_tokens": 64, **details})

    events = [iteration(1.0, chunks=[[0, 16]]), iteration(2.0), iteration(3.0), iteration(5.0)]
    forwards = [[0.1, 0.9], [1.1, 1.9], [2.1, 2.9], [3.5, 4.5]]
    assert bench_forward.shares(events, forwards) == pytest.approx([0.8, 0.5])


BENCHMARKS = """
import pytest

def test_good(benchmark):
    benchmark.pedantic(lambda: None, rounds=2)
    benchmark.extra_info["marks"] = [{"row": "good", "rounds": [1.0, 2.0]}]

def test_bad(benchmark):
    benchmark.extra_info["marks"] = [{"row": "bad", "rounds": [1.0]}]
    raise RuntimeError("it broke")

def test_gone():
    pytest.skip("needs a peer")

@pytest.fixture
def broken():
    raise RuntimeError("no set-up")

def test_not_set_up(broken):
    pass

def test_last(benchmark):
    benchmark.pedantic(lambda: None, rounds=2)
    benchmark.extra_info["marks"] = [{"row": "last", "rounds": [3.0], "unit": "ms"}]
"""


def test_each_test_leaves_its_outcome(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/benchmarks/conftest.py").read_text())
    (tmp_path / "bench_some.py").write_text(BENCHMARKS)
    command = [sys.executable, "-m", "pytest", str(tmp_path / "bench_some.py"), "-p", "no:cacheprovider"]
    options = [f"--rootdir={tmp_path}", f"--benchmark-json={tmp_path / 'bench_some.json'}"]
    done = subprocess.run([*command, *options], cwd=tmp_path, env=environment(0), capture_output=True, check=False)
    assert done.returncode == 1
    outcomes = read_outcomes(tmp_path)["bench_some.py"]
    assert [(one.test, one.outcome, one.reason) for one in outcomes] == [
        ("test_good", "passed", ""),
        ("test_bad", "failed", "RuntimeError: it broke"),
        ("test_gone", "skipped", "needs a peer"),
        ("test_not_set_up", "failed", "RuntimeError: no set-up"),
        ("test_last", "passed", ""),
    ]
    assert [[one.row for one in test.marks] for test in outcomes] == [["good"], [], [], [], ["last"]]
    kept = json.loads((tmp_path / "bench_some.json").read_text())
    assert {one["name"] for one in kept["benchmarks"]} == {"test_good", "test_last"}


@pytest.mark.parametrize(
    ("arguments", "named"), [(["bench_none"], "FILE=bench_none: must be one of"), (["--name=a/b"], "--name=a/b: must")]
)
def test_runner_refuses_what_it_does_not_know(arguments: list[str], named: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.run", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(0), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and named in done.stderr
