"""All benchmarks, one file after the other: `python -m tests.benchmarks.run [--name NAME] [bench_links ...]`.

Their results go to reports/bench/NAME: of each file pytest-benchmark's JSON (bench_links.json), what its tests say of
rows (bench_links.jsonl) and what it printed (bench_links.log); then the table of marks is printed and drawn. A file
that fails, or is killed after `LIMIT_S`, leaves what was measured until then; files that are not named leave what they
have measured before. Exit code 0 whatever the marks say.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from tetribench.provenance import environment
from tetribench.report.marks import SUFFIX, Outcome

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
LIMIT_S = 1800
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ENDED = (0, 1)
"""pytest's exit codes where tests ran, whether or not they passed."""


def main() -> None:
    files = sorted(path.stem for path in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description="Run benchmarks and print the table of marks.")
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(files)}; by default all")
    parser.add_argument("--name", default="here", help="of the folder in reports/bench")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench", help="where that folder is")
    asked = parser.parse_args()
    for file in asked.files:
        if file not in files:
            parser.error(f"FILE={file}: must be one of {', '.join(files)}")
    if not asked.name or Path(asked.name).name != asked.name:
        parser.error(f"--name={asked.name}: must be the name of a folder, without slashes")
    folder = asked.out.absolute() / asked.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n")
    for file in asked.files or files:
        run(file, folder)
    sys.exit(report(folder))


def run(file: str, folder: Path) -> None:
    for suffix in (SUFFIX, ".json"):
        (folder / f"{file}{suffix}").unlink(missing_ok=True)
    (folder / f"{file}{SUFFIX}").touch()
    command = [sys.executable, "-m", "pytest", str(FOLDER / f"{file}.py"), "-p", "no:cacheprovider", "-rs"]
    options = [f"--benchmark-json={folder / f'{file}.json'}", "--benchmark-columns=median,iqr,min,max,rounds"]
    print(f"{file} ...", flush=True)
    with (folder / f"{file}.log").open("wb") as log:
        try:
            done = subprocess.run(
                [*command, *options], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log, check=False, timeout=LIMIT_S
            )
            broken = "" if done.returncode in ENDED else f"pytest ended with code {done.returncode}; see {file}.log"
        except subprocess.TimeoutExpired:
            broken = f"stopped after {LIMIT_S} s"
    if broken:
        print(f"{file}: {broken}", flush=True)
        with (folder / f"{file}{SUFFIX}").open("ab") as outcomes:
            outcomes.write(msgspec.json.encode(Outcome(test=file, outcome="failed", reason=broken)) + b"\n")


def report(folder: Path) -> int:
    command = [sys.executable, "-m", "tetribench.cli", "task=report", f"task.runs=[{folder}]"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    main()
