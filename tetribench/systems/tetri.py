"""TetriInfer: prefill and decode apart (the paper's system)."""

from tetribench.control.churn import Action, parse_churn
from tetribench.control.flip import FlipPolicy, NoFlip
from tetribench.control.route import Router
from tetribench.core.roles import Role
from tetribench.decode.preempt import Preemption
from tetribench.decode.scheduler import DecodePolicies
from tetribench.engine.base import EngineFactory
from tetribench.engine.sharing import Sharing
from tetribench.kv.links import Medium
from tetribench.prefill.scheduler import PrefillPolicies
from tetribench.systems.base import Plan


class Tetri:
    """`num_prefill` prefill instances, `num_decode` decode instances, KV over `link`.

    Instances report their load every `report_period_s`; the cluster monitor broadcasts every `broadcast_period_s`
    (100 ms in the paper), so that dispatchers decide on loads that are up to the sum of both old, and then looks for
    flips. `churn` says what happens to the instances from outside, such as `2.5 kill decode-0`.

    With `sharing` prefill-0 and decode-0 are on one device, prefill-1 and decode-1 on another, and so on, each with
    half of the KV memory that an instance alone would have. With `time_slicing` the two take turns in virtual time as
    `SharedDevice` says, on a CPU both processes are pinned to one core, and on a GPU the driver gives them turns. With
    `mps` both compute on a GPU at the same time, under a daemon that starts and ends with the run. With
    `green_contexts` both are in one process, each on multiprocessors of its own: prefill has `prefill_share` of them
    (by default half), decode the rest. None of these has yet been seen on a GPU.
    """

    def __init__(
        self,
        *,
        prefill: PrefillPolicies,
        decode: DecodePolicies,
        route: Router,
        link: Medium,
        flip: FlipPolicy,
        num_prefill: int = 1,
        num_decode: int = 1,
        report_period_s: float = 0.1,
        broadcast_period_s: float = 0.1,
        churn: list[str] | None = None,
        sharing: Sharing = Sharing.none,
        prefill_share: float | None = None,
    ) -> None:
        for option, count in {"num_prefill": num_prefill, "num_decode": num_decode}.items():
            if count < 1:
                raise ValueError(f"system.tetri.{option}={count}: must be at least 1")
        for option, period_s in {"report_period_s": report_period_s, "broadcast_period_s": broadcast_period_s}.items():
            if period_s <= 0:
                raise ValueError(f"system.tetri.{option}={period_s}: must be positive")
        self.prefill = prefill
        self.decode = decode
        self.route = route
        self.link = link
        self.flip = flip
        self.num_instances = {Role.prefill: num_prefill, Role.decode: num_decode}
        self.churn = parse_churn("system.tetri.churn", churn or [], self.num_instances)
        is_growing = any(step.action is Action.add for step in self.churn)
        if not isinstance(flip, NoFlip) and num_prefill + num_decode == 2 and not is_growing:
            raise ValueError(
                "control.flip: with system.tetri.num_prefill=1 and num_decode=1 nobody may flip, because at least one "
                "of each role stays; must be none, or one of the two at least 2"
            )
        if sharing is not Sharing.none and num_prefill != num_decode:
            raise ValueError(
                f"system.tetri.sharing={sharing.value}: each prefill instance is beside a decode instance; "
                f"num_prefill={num_prefill} and num_decode={num_decode} must be equal"
            )
        if sharing is not Sharing.none and self.churn:
            raise ValueError(
                f"system.tetri.churn: with sharing={sharing.value} instances neither come nor go, which would leave "
                f"halves of devices; must be empty"
            )
        if prefill_share is not None and sharing is not Sharing.green_contexts:
            raise ValueError(
                f"system.tetri.prefill_share={prefill_share}: nothing is divided with sharing={sharing.value}; must be "
                f"null, or sharing=green_contexts"
            )
        if prefill_share is not None and not 0 < prefill_share < 1:
            raise ValueError(f"system.tetri.prefill_share={prefill_share}: must be above 0 and below 1")
        self.sharing = sharing
        self.prefill_share = 0.5 if prefill_share is None else prefill_share
        self.report_period_s = report_period_s
        self.broadcast_period_s = broadcast_period_s

    def plan(self, engine: EngineFactory) -> Plan:
        swaps = self.decode.preemption is Preemption.swap  # any instance may become a decode instance
        part = engine
        if self.sharing is not Sharing.none:
            part = engine.shared(len(self.num_instances), self.sharing, self.prefill_share)
        return Plan(
            num_instances=self.num_instances,
            schedulers={Role.prefill: self.prefill, Role.decode: self.decode},
            engine=part.with_host_memory() if swaps else part,
            predictor=self.prefill.predictor(),
            link=self.link,
            router=self.route,
            report_period_s=self.report_period_s,
            broadcast_period_s=self.broadcast_period_s,
            flip=self.flip,
            churn=self.churn,
            sharing=self.sharing,
        )
