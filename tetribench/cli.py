"""The command `tetribench`: Hydra's command line, every mistake of the user answered in one line and exit code 2."""

import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from tetribench.config import build, conf_folder, options_of, register
from tetribench.config_errors import explain, refuse_added_keys
from tetribench.experiment import Setup
from tetribench.instance.launch import InstanceFailed
from tetribench.metrics.slo import Slo

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

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130


def main() -> None:
    """Entry point. Exit codes: 0, 1 a run failed, 2 the input was bad, 130 interrupted."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that `answered` can answer
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP + option_groups())  # Hydra's own help takes seconds to list what this lists
        return
    sys.argv[1:] = for_sweep(sys.argv[1:])
    with answered():
        register()
        _hydra_main()


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
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        sys.exit(_say(explain(error, sys.argv[1:]), BAD_INPUT))
    except (InstanceFailed, TimeoutError) as error:
        sys.exit(_say(str(error), FAILED))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; what was recorded so far is in the run folder", INTERRUPTED))


def _say(message: str, code: int) -> int:
    print(f"tetribench: {message}", file=sys.stderr)
    return code


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends the instances like Ctrl-C
    with answered():  # here too, or Hydra reports what passes through it
        refuse_added_keys(config)
        build(config.task).execute(lambda: setup_of(config), Console())


def option_groups() -> str:
    """Every group with its options, a line each, for `--help`."""
    folders = sorted({path.parent.relative_to(conf_folder()).as_posix() for path in conf_folder().glob("*/**/*.yaml")})
    lines = [f"{group}: {', '.join(options_of(group))}" for group in folders]
    return "\n".join(textwrap.fill(line, 80, initial_indent="  ", subsequent_indent="      ") for line in lines)


def setup_of(config: DictConfig) -> Setup:
    """The components of a run. Raises ValueError for what composes but cannot be."""
    if OmegaConf.is_missing(config, "workload"):
        names = ", ".join(options_of("workload"))
        raise ValueError(f"no workload was chosen; type for example +workload=heavy_prefill (there are: {names})")
    for name in config.systems:
        if name not in config.system:
            raise ValueError(f"systems={name}: must be one of {', '.join(sorted(config.system))}")
    if not config.systems:
        raise ValueError(f"systems=[]: name at least one of {', '.join(sorted(config.system))}")
    if config.stall_timeout_s <= 0:
        raise ValueError(f"stall_timeout_s={config.stall_timeout_s}: must be positive")
    systems = {legend: build(config.system[name]) for legend, name in _legends(list(config.systems)).items()}
    engine, runtime = build(config.engine), build(config.runtime)
    if runtime.is_virtual and config.engine._target_ != "tetribench.engine.cost_engine.CostModelFactory":
        raise ValueError("engine=hf: a real engine cannot run in virtual time; runtime=sim needs engine=cost_model")
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, enum_to_str=True)  # type: ignore[assignment]
    return Setup(
        workload_name=options["workload"].get("name") or Path(str(options["workload"].get("path"))).name.split(".")[0],
        workload=build(config.workload),
        systems=systems,
        model=engine.model,
        engine=engine,
        runtime=runtime,
        drive=build(config.drive),
        track=build(config.track),
        seed=config.seed,
        natural_stop=config.natural_stop,
        stall_timeout_s=config.stall_timeout_s,
        slo=Slo(**options["slo"]),
        out=Path(config.out),
        name=config.name,
        show_progress=config.progress,
        options=options,
        config_yaml=OmegaConf.to_yaml(config, resolve=True),
        command=" ".join(["tetribench", *sys.argv[1:]]),
    )


def _legends(names: list[str]) -> dict[str, str]:
    """Legend entry to system; a system named twice, to compare it with itself, is numbered from the second on."""
    legends: dict[str, str] = {}
    for name in names:
        num_before = sum(other == name for other in legends.values())
        legends[f"{name}#{num_before + 1}" if num_before else name] = name
    return legends


if __name__ == "__main__":
    main()
