"""TetriInfer: prefill and decode apart (the paper's system)."""

from tetribench.control.route import Router
from tetribench.decode.scheduler import DecodePolicies
from tetribench.engine.base import EngineFactory
from tetribench.instance.launch import NOTHING_TO_PREDICT, InstanceSpec, Role
from tetribench.kv.links import LinkSpeed
from tetribench.prefill.scheduler import PrefillPolicies
from tetribench.systems.base import Plan


class Tetri:
    """`num_prefill` prefill instances, `num_decode` decode instances, KV over `link`.

    Instances report their load every `report_period_s`; the cluster monitor broadcasts every `broadcast_period_s`
    (100 ms in the paper), so that dispatchers decide on loads that are up to the sum of both old.
    """

    def __init__(
        self,
        *,
        prefill: PrefillPolicies,
        decode: DecodePolicies,
        route: Router,
        link: LinkSpeed,
        num_prefill: int = 1,
        num_decode: int = 1,
        report_period_s: float = 0.1,
        broadcast_period_s: float = 0.1,
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
        self.num_prefill = num_prefill
        self.num_decode = num_decode
        self.report_period_s = report_period_s
        self.broadcast_period_s = broadcast_period_s

    def plan(self, engine: EngineFactory) -> Plan:
        prefills = [f"prefill-{index}" for index in range(self.num_prefill)]
        decodes = [f"decode-{index}" for index in range(self.num_decode)]
        roles = {**dict.fromkeys(prefills, Role.prefill), **dict.fromkeys(decodes, Role.decode)}
        instances = [
            InstanceSpec(
                name=name,
                index=index,
                role=role,
                scheduler=self.prefill if role is Role.prefill else self.decode,
                engine=engine,
                link=self.link,
                report_period_s=self.report_period_s,
                predictor=self.prefill.predictor() if role is Role.prefill else NOTHING_TO_PREDICT,
            )
            for index, (name, role) in enumerate(roles.items())
        ]
        return Plan(
            instances=instances,
            router=self.route,
            entries=prefills,
            decodes=decodes,
            broadcast_period_s=self.broadcast_period_s,
        )
