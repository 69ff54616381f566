"""The command `tetribench`: Hydra's command line, every mistake of the user answered in one line and exit code 2."""

import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from tetribench.composition import Composition
from tetribench.config import conf_folder, options_of, register
from tetribench.config_errors import explain, refuse_added_keys
from tetribench.experiment import ExperimentsFailed, InvalidRun
from tetribench.instance.launch import InstanceFailed

HELP = """\
tetribench: should prefill and decode live together or apart?

Usage:  tetribench +workload=NAME [option=value ...]

  tetribench +workload=heavy_prefill
      TetriInfer against a vLLM-like baseline, on real processes
  tetribench +workload=mixed runtime=sim
      the same schedulers in virtual time, on a cost model
  tetribench +workload=lphd model=smollm2
      a real small model
  tetribench -m +workload=lpld,lphd,hpld,hphd,mixed runtime=sim
      one run for each workload
  tetribench task=report 'task.runs=[reports/runs/*]'
      finished runs side by side

Any option can be set: seed=1 workload.num_requests=32
All options with their values: tetribench +workload=mixed --cfg job

Groups of options (group=option):

"""

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130

USER_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
RUN_ERRORS = (ExperimentsFailed, InstanceFailed, InvalidRun, TimeoutError)

_failures: dict[str, int] = {}
"""Of a sweep: by job the exit code that it would have had by itself."""


def main() -> None:
    """Entry point. Exit codes: 0, 1 a run failed or is INVALID, 2 the input was bad, 130 interrupted."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that `answered` can answer
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP + option_groups())  # Hydra's own help takes seconds to list what this lists
        return
    sys.argv[1:] = for_sweep(sys.argv[1:])
    _failures.clear()
    with answered():
        register(with_experiments=any(re.match(r"\+?(experiment|task)=", argument) for argument in sys.argv[1:]))
        _hydra_main()
    if _failures:
        sys.exit(_say(f"{len(_failures)} of the jobs failed: {'; '.join(_failures)}", min(_failures.values())))


def for_sweep(arguments: list[str]) -> list[str]:
    """Arguments of a sweep over workloads that Hydra understands; all others as they are.

    Hydra first composes a sweep without what is swept over. It then knows no workload and refuses the workload's own
    options, unless they too are given as sweeps, of one value each.
    """
    if not {"-m", "--multirun"} & set(arguments):
        return arguments
    return [re.sub(r"^(\+*(?:arrivals@)?workload\.[\w.]+)=([^,(]+)$", r"\1=choice(\2)", one) for one in arguments]


@contextmanager
def answered() -> Iterator[None]:
    """Turn what a user can cause into one line and an exit code; anything else is our bug and keeps its traceback."""
    try:
        yield
    except USER_ERRORS as error:
        sys.exit(_say(explain(error, sys.argv[1:]), BAD_INPUT))
    except RUN_ERRORS as error:
        sys.exit(_say(str(error), FAILED))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; what was recorded so far is in the run folder", INTERRUPTED))


@contextmanager
def survived(job: str) -> Iterator[None]:
    """A job of a sweep that fails is said at once and once more in the end; the others go on."""
    try:
        yield
    except USER_ERRORS as error:
        _failures[job] = BAD_INPUT
        _say(f"{job}: {explain(error, sys.argv[1:])}", BAD_INPUT)
    except RUN_ERRORS as error:
        _failures[job] = FAILED
        _say(f"{job}: {error}", FAILED)


def _say(message: str, code: int) -> int:
    print(f"tetribench: {message}", file=sys.stderr)
    return code


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends the instances like Ctrl-C
    hydra_config = HydraConfig.get()
    is_sweep = hydra_config.mode is RunMode.MULTIRUN
    job = " ".join(hydra_config.overrides.task)
    with survived(job) if is_sweep else answered():  # here, or Hydra reports what passes through it
        refuse_added_keys(config)
        overrides = list(hydra_config.overrides.task)
        composed = Composition(config, " ".join(["tetribench", *sys.argv[1:]]), overrides)
        composed.task().execute(composed, Console())


def option_groups() -> str:
    """Every group with its options, a line each, for `--help`."""
    folders = sorted({path.parent.relative_to(conf_folder()).as_posix() for path in conf_folder().glob("*/**/*.yaml")})
    lines = [f"{group}: {', '.join(options_of(group))}" for group in folders]
    return "\n".join(textwrap.fill(line, 80, initial_indent="  ", subsequent_indent="      ") for line in lines)


if __name__ == "__main__":
    main()
