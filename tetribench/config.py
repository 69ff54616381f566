"""The one table of what can be chosen: group/option -> class.

Schemas are derived from the classes' signatures, so that a misspelt key, a wrong type or another option's key is
refused when the configuration is composed.
"""

import importlib
import inspect
import types
import typing
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig

from tetribench.decode.preempt import Preemption
from tetribench.engine.hf.schema import Device
from tetribench.kv.transfer import Granularity

COMPONENTS = {
    "arrivals/at_once": "tetribench.workload.arrivals.AtOnce",
    "arrivals/constant": "tetribench.workload.arrivals.Constant",
    "arrivals/poisson": "tetribench.workload.arrivals.Poisson",
    "arrivals/gamma": "tetribench.workload.arrivals.Gamma",
    "workload/class": "tetribench.workload.classes.ClassWorkload",
    "workload/shift": "tetribench.workload.shift.ShiftWorkload",
    "workload/interference": "tetribench.workload.interference.InterferenceWorkload",
    "workload/lognormal": "tetribench.workload.lognormal.LognormalWorkload",
    "workload/trace": "tetribench.workload.traces.TraceWorkload",
    "workload/text": "tetribench.workload.text.TextWorkload",
    "workload/text_mix": "tetribench.workload.text_mix.TextMixWorkload",
    "workload/file": "tetribench.workload.files.FileWorkload",
    "model/model": "tetribench.engine.model.Model",
    "hardware/hardware": "tetribench.engine.hardware.Hardware",
    "hardware/local": "tetribench.engine.local_profile.LocalProfile",
    "engine/hf": "tetribench.engine.hf.schema.HFEngine",
    "engine/cost_model": "tetribench.engine.cost_engine.CostModelFactory",
    "runtime/sim": "tetribench.instance.runtime.Sim",
    "runtime/inline": "tetribench.instance.runtime.Inline",
    "runtime/process": "tetribench.instance.runtime.Process",
    "drive/open": "tetribench.drive.loadgen.OpenLoop",
    "drive/closed": "tetribench.drive.loadgen.ClosedLoop",
    "prefill/order/fcfs": "tetribench.prefill.order.FCFS",
    "prefill/order/sjf": "tetribench.prefill.order.SJF",
    "prefill/order/ljf": "tetribench.prefill.order.LJF",
    "prefill/chunk/fixed": "tetribench.prefill.chunk.Chunker",
    "prefill/predict/none": "tetribench.prefill.predict.NoPrediction",
    "prefill/predict/oracle": "tetribench.prefill.predict.Oracle",
    "prefill/predict/noisy_oracle": "tetribench.prefill.predict.NoisyOracle",
    "prefill/predict/learned": "tetribench.prefill.predict.Learned",
    "prefill/predict_mode/sequential": "tetribench.prefill.predict_mode.Sequential",
    "prefill/predict_mode/parallel": "tetribench.prefill.predict_mode.Parallel",
    "prefill/dispatch/power_of_two": "tetribench.prefill.dispatch.PowerOfTwo",
    "prefill/dispatch/random": "tetribench.prefill.dispatch.RandomDispatch",
    "prefill/dispatch/imbalance": "tetribench.prefill.dispatch.Imbalance",
    "decode/admit/greedy": "tetribench.decode.admit.Greedy",
    "decode/admit/reserve_static": "tetribench.decode.admit.ReserveStatic",
    "decode/admit/reserve_dynamic": "tetribench.decode.admit.ReserveDynamic",
    "kv/link/memory": "tetribench.kv.links.memory.Memory",
    "kv/link/shared_memory": "tetribench.kv.links.shared_memory.SharedMemory",
    "kv/link/tcp": "tetribench.kv.links.tcp.Tcp",
    "kv/link/nixl": "tetribench.kv.links.nixl.Nixl",
    "kv/speed/speed": "tetribench.kv.links.speed.LinkSpeed",
    "control/route/least_queued_tokens": "tetribench.control.route.LeastQueuedTokens",
    "control/route/least_requests": "tetribench.control.route.LeastRequests",
    "control/route/round_robin": "tetribench.control.route.RoundRobin",
    "control/flip/none": "tetribench.control.flip.NoFlip",
    "control/flip/low_load": "tetribench.control.flip.LowLoad",
    "control/flip/idle": "tetribench.control.flip.Idle",
    "control/flip/queue_ratio": "tetribench.control.flip.QueueRatio",
    "system/prefill": "tetribench.prefill.scheduler.PrefillPolicies",
    "system/decode": "tetribench.decode.scheduler.DecodePolicies",
    "system/prefill_first": "tetribench.colocated.prefill_first.PrefillFirstPolicies",
    "system/mixed": "tetribench.colocated.mixed.MixedPolicies",
    "system/tetri": "tetribench.systems.tetri.Tetri",
    "system/vllm_like": "tetribench.systems.vllm_like.VllmLike",
    "system/sarathi_like": "tetribench.systems.sarathi_like.SarathiLike",
    "system/openai_server": "tetribench.systems.openai_server.OpenAIServer",
    "system/vllm_server": "tetribench.systems.vllm_server.VllmServer",
    "system/vllm_pd": "tetribench.systems.vllm_pd.VllmPD",
    "validity/limits": "tetribench.metrics.limits.Limits",
    "track/none": "tetribench.track.NoTracking",
    "track/wandb": "tetribench.track.WandbTracking",
    "task/run": "tetribench.tasks.Run",
    "task/report": "tetribench.tasks.Report",
    "task/generate": "tetribench.tasks.Generate",
    "task/rerun": "tetribench.rerun.Rerun",
    "task/plan": "tetribench.plan.Plan",
    "task/collect_lengths": "tetribench.training.collect.CollectLengths",
    "task/train_predictor": "tetribench.training.train.TrainPredictor",
}


EXPERIMENTS = {
    "task/calibrate": "tetribench.calibrate.task.Calibrate",
    "task/marks": "tetribench.calibrate.marks_task.Marks",
    "task/gpu_bench": "tetribench.calibrate.gpu_bench.GpuBench",
    "task/fit": "tetribench.calibrate.task.Fit",
    "task/study": "tetribench.study.systems.SystemStudy",
    "task/fidelity": "tetribench.fidelity.study.Fidelity",
    "task/lengths": "tetribench.study.lengths.LengthStudy",
    "task/requests": "tetribench.study.requests.RequestStudy",
    "task/sensitivity": "tetribench.study.sensitivity.SensitivityStudy",
    "task/steps": "tetribench.study.steps.StepStudy",
    "task/paper": "tetribench.study.paper.Paper",
    "figure/end_to_end": "tetribench.paper.end_to_end.EndToEnd",
    "figure/fig01": "tetribench.paper.fig01.Lengths",
    "figure/steps": "tetribench.paper.steps.StepFigure",
    "figure/fig16": "tetribench.paper.fig16.PrefillPolicies",
    "figure/fig17": "tetribench.paper.fig17.PredictorModes",
    "figure/fig18": "tetribench.paper.fig18.Admission",
    "figure/fig19": "tetribench.paper.fig19.Dispatching",
    "figure/table1": "tetribench.paper.table1.Workloads",
    "task/study_chosen": "tetribench.study.chosen.ChosenStudy",
    "task/study_loads": "tetribench.study.loads.LoadStudy",
    "task/interference": "tetribench.study.interference.InterferenceStudy",
    "figure/interference": "tetribench.beyond.interference.Interference",
    "task/regret": "tetribench.study.regret.RegretStudy",
    "task/run_regret": "tetribench.fidelity.regret.RunRegret",
    "figure/winners": "tetribench.beyond.winners.Winners",
    "figure/rates": "tetribench.beyond.rates.Rates",
    "figure/equal_hardware": "tetribench.beyond.equal_hardware.EqualHardware",
    "figure/staleness": "tetribench.beyond.staleness.Staleness",
    "figure/regret": "tetribench.beyond.regret.RegretFigure",
    "figure/accuracy": "tetribench.beyond.accuracy.Accuracy",
    "figure/attribution": "tetribench.beyond.attribution.Attribution",
}
"""What only experiments and calibration use; loading these takes a second or two."""


@dataclass
class Component:
    """Base of every derived schema."""

    _target_: str = MISSING


@dataclass
class Prefill:
    order: Component = MISSING
    chunk: Component = MISSING
    predict: Component = MISSING
    predict_mode: Component = MISSING
    dispatch: Component = MISSING


@dataclass
class Decode:
    admit: Component = MISSING
    preemption: Preemption = Preemption.recompute


@dataclass
class KV:
    link: Component = MISSING
    speed: Component = MISSING
    granularity: Granularity = Granularity.chunk


@dataclass
class Control:
    route: Component = MISSING
    flip: Component = MISSING


@dataclass
class Slo:
    """Limits that a request must keep to count as good; null is no limit.

    `classes` has by SLA class its own limits, as in `+slo.classes.interactive.ttft_s=0.5`; one that a class does not
    set is the one for all. Checked where it is built, since a dictionary of schemas takes no keys one by one.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    classes: dict[str, dict[str, float | None]] = field(default_factory=dict)


@dataclass
class Until:
    """Repeats beyond `repeats`: until the interval of the verdict's ratio is at most `interval_width` wide,
    `max_repeats` are done, or another would not end within `budget_s`. A width needs one of these, and they need it."""

    interval_width: float | None = None
    max_repeats: int | None = None
    budget_s: float | None = None


@dataclass
class Verdict:
    """`metric` decides; ratios within `margin` of 1 are equivalent."""

    metric: str = "mean_jct_s"
    margin: float = 0.05


@dataclass
class Cost:
    """What a device costs, in US dollars for each hour; null leaves money out of the report."""

    price_per_device_hour: float | None = None


@dataclass
class Config:
    """The root. `systems` names the entries of `system` that are compared, the last being the baseline.

    `natural_stop` lets responses end at a stop token before their drawn length; by default real weights do and random
    ones do not. `name` and `out` say where the run folder is made; by default the name says when and what.
    `alternatives` holds components that some of the systems use instead of the root's choice (`${alternatives.NAME}`).
    `axes` says what an experiment varies: by axis and label, the options that differ there.
    """

    workload: Component = MISSING
    systems: list[str] = field(default_factory=lambda: ["tetri", "vllm_like"])
    seed: int = 0
    repeats: int = 1
    aa_band: bool = True
    until: Until = field(default_factory=Until)
    verdict: Verdict = field(default_factory=Verdict)
    validity: Component = MISSING
    device: Device = Device.auto
    natural_stop: bool | None = None
    name: str | None = None
    out: str = "reports/runs"
    resume: bool = False
    progress: bool = True
    stall_timeout_s: float = 300.0
    slo: Slo = field(default_factory=Slo)
    cost: Cost = field(default_factory=Cost)
    model: Component = MISSING
    engine: Component = MISSING
    hardware: Component = MISSING
    runtime: Component = MISSING
    drive: Component = MISSING
    prefill: Prefill = field(default_factory=Prefill)
    decode: Decode = field(default_factory=Decode)
    kv: KV = field(default_factory=KV)
    control: Control = field(default_factory=Control)
    alternatives: dict[str, Component] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Component] = field(default_factory=dict)
    track: Component = MISSING
    task: Component = MISSING


def conf_folder() -> Path:
    """Where the option files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    packed = package / "conf"
    return packed if packed.is_dir() else package.parent / "conf"


def options_of(group: str) -> list[str]:
    """Names of the option files of a group."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def load_class(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    loaded: type[Any] = getattr(importlib.import_module(module), name)
    return loaded


def schema_of(path: str) -> type[Any]:
    """The dataclass that Hydra checks an option against, derived from the class's constructor."""
    cls = load_class(path)
    fields: list[tuple[str, Any, Any]] = [("_target_", str, field(default=path))]
    if cls.__init__ is not object.__init__:
        hints = typing.get_type_hints(cls.__init__)
        for name, parameter in inspect.signature(cls).parameters.items():
            kind = hints[name] if _is_plain(hints[name]) else Component
            default = MISSING if parameter.default is parameter.empty or kind is Component else parameter.default
            fields.append((name, kind, field(default=default)))
    return make_dataclass(cls.__name__, fields, bases=(Component,))


def _is_plain(hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) in (list, typing.Union):
        return all(_is_plain(part) for part in typing.get_args(hint))
    return hint in (int, float, str, bool, types.NoneType) or (isinstance(hint, type) and issubclass(hint, Enum))


@cache
def register(with_experiments: bool = True) -> None:
    """Make every schema known to Hydra, under `schema/`, unless they are: its store is one for the whole process."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for option, path in {**COMPONENTS, **(EXPERIMENTS if with_experiments else {})}.items():
        group, _, name = option.rpartition("/")
        store.store(group=f"schema/{group}", name=name, node=schema_of(path))


def build(node: DictConfig) -> Any:
    """The objects that a configuration node describes. Raises the constructor's own ValueError."""
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
