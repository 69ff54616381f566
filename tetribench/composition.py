"""From the composed configuration to objects: the only place where components are built."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tetribench.config import build, options_of
from tetribench.config_errors import explain
from tetribench.experiment import Axes, Resolved, Setup
from tetribench.metrics.price import Price
from tetribench.metrics.rule import Rule
from tetribench.metrics.slo import Slo
from tetribench.prefill.chunk import DEFAULT_CHUNK_SIZE
from tetribench.repeats import Repeats

_TIMES = re.compile(r"x(\d+(?:\.\d+)?)")


class Composition:
    """Implements `experiment.Composed`. `command` is what the user typed, `overrides` what this job has of it."""

    def __init__(self, config: DictConfig, command: str, overrides: Sequence[str] = ()) -> None:
        self._config = config
        self._command = command
        self._overrides = list(overrides)

    def task(self) -> Any:
        return build(self._config.task)

    def overrides(self) -> list[str]:
        return list(self._overrides)

    def axes(self) -> Axes:
        axes: Axes = OmegaConf.to_container(self._config.axes, resolve=False)  # type: ignore[assignment]
        return axes

    def variant(self, options: Mapping[str, Any]) -> "Composition":
        config = deepcopy(self._config)
        for option, value in options.items():
            try:
                OmegaConf.update(config, option, _scaled(config, option, value), merge=False)
            except OmegaConfBaseException as error:  # which holds the configuration and cannot leave its process
                raise ValueError(f"{option}: {explain(error, [])}") from None
        return Composition(config, self._command, self._overrides)

    def experiment(self, name: str, overrides: list[str]) -> "Composition":
        return Composition(compose("config", [f"+experiment={name}", *overrides]), self._command)

    def again(self, overrides: Sequence[str]) -> "Composition":
        config = compose("config", list(overrides))
        for option in ("out", "name", "progress"):
            OmegaConf.update(config, option, self._config[option])
        return Composition(config, self._command, overrides)

    def setup(self) -> Setup:
        config = self._config
        _check(config)
        chunk_size = _chunk_size(config)
        if chunk_size:
            return self.variant(chunk_size).setup()
        systems = {legend: build(config.system[name]) for legend, name in _legends(list(config.systems)).items()}
        engine, runtime = build(config.engine), build(config.runtime)
        if runtime.is_virtual and config.engine._target_ != "tetribench.engine.cost_engine.CostModelFactory":
            raise ValueError("engine=hf: a real engine cannot run in virtual time; runtime=sim needs engine=cost_model")
        workload = config.workload
        return Setup(
            workload_name=workload.get("name") or Path(str(workload.get("path"))).name.split(".")[0],
            workload=build(workload),
            systems=systems,
            model=engine.model,
            engine=engine,
            runtime=runtime,
            drive=build(config.drive),
            track=build(config.track),
            seed=config.seed,
            repeats=Repeats(
                config.repeats,
                max_num=config.until.max_repeats,
                interval_width=config.until.interval_width,
                budget_s=config.until.budget_s,
            ),
            aa_band=config.aa_band,
            verdict=Rule(config.verdict.metric, config.verdict.margin),
            limits=build(config.validity),
            natural_stop=config.natural_stop,
            stall_timeout_s=config.stall_timeout_s,
            slo=Slo(**OmegaConf.to_container(config.slo, resolve=True)),  # type: ignore[arg-type]
            cost=Price(**OmegaConf.to_container(config.cost)),  # type: ignore[arg-type]
            out=Path(config.out),
            name=config.name,
            resume=config.resume,
            show_progress=config.progress,
            resolved=lambda: self._resolved,
            command=self._command,
            overrides=self._overrides,
        )

    @cached_property
    def _resolved(self) -> Resolved:
        options: dict[str, Any] = OmegaConf.to_container(self._config, resolve=True, enum_to_str=True)  # type: ignore[assignment]
        return Resolved(options, OmegaConf.to_yaml(self._config, resolve=True))


def _check(config: DictConfig) -> None:
    """What the schema cannot say."""
    if OmegaConf.is_missing(config, "workload"):
        names = ", ".join(options_of("workload"))
        raise ValueError(f"no workload was chosen; type for example +workload=heavy_prefill (there are: {names})")
    for name in config.systems:
        if name not in config.system:
            raise ValueError(f"systems={name}: must be one of {', '.join(sorted(config.system))}")
    if not config.systems:
        raise ValueError(f"systems=[]: name at least one of {', '.join(sorted(config.system))}")
    if config.until.interval_width is not None and len(config.systems) == 1:
        raise ValueError(
            f"until.interval_width={config.until.interval_width}: is that of a ratio; systems must name two or more"
        )
    if config.stall_timeout_s <= 0:
        raise ValueError(f"stall_timeout_s={config.stall_timeout_s}: must be positive")


def _chunk_size(config: DictConfig) -> dict[str, Any]:
    """The options that settle it where the user has not: the knee that was measured for this model, or the paper's."""
    if config.prefill.chunk.chunk_size is not None:
        return {}
    hardware = build(config.hardware)
    found, found_from = DEFAULT_CHUNK_SIZE, "the paper: none was measured with this model on this hardware"
    if hardware.chunk_size is not None and getattr(hardware, "model_name", config.model.name) == config.model.name:
        found, found_from = hardware.chunk_size, f"the profile {hardware.name}, where throughput stops growing"
    return {"prefill.chunk.chunk_size": found, "prefill.chunk.chunk_size_from": found_from}


def _scaled(config: DictConfig, option: str, value: Any) -> Any:
    """`x2` is twice what the option is; any other value is itself."""
    if not isinstance(value, str) or (found := _TIMES.fullmatch(value)) is None:
        return value
    present = OmegaConf.select(config, option)
    if not isinstance(present, int | float):
        raise ValueError(f"{option}={value}: multiplies a number, and the option is {present}")
    scaled = present * float(found[1])
    return round(scaled) if isinstance(present, int) else scaled


def _legends(names: list[str]) -> dict[str, str]:
    """Legend entry to system; a system named twice, to compare it with itself, is numbered from the second on."""
    legends: dict[str, str] = {}
    for name in names:
        num_before = sum(other == name for other in legends.values())
        legends[f"{name}#{num_before + 1}" if num_before else name] = name
    return legends
