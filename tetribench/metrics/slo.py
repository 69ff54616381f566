"""Service level objectives: what a request must meet to count as good, by its SLA class."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Bounds(NamedTuple):
    """Of one SLA class; None is no bound. A response of one token has no TPOT and meets every bound on it."""

    ttft_s: float | None
    tpot_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """The bounds for all requests, and by SLA class those of its own, which replace them one by one."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    classes: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("slo", self._general)
        for sla_class, own in self.classes.items():
            _check(f"slo.classes.{sla_class}", own)

    @property
    def _general(self) -> dict[str, float | None]:
        return {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s}

    def bounds_of(self, sla_class: str) -> Bounds:
        """What a request of this class must meet."""
        return Bounds(**self._general | self.classes.get(sla_class, {}))


def _check(option: str, bounds_s: dict[str, float | None]) -> None:
    for name, bound_s in bounds_s.items():
        if name not in Bounds._fields:
            raise ValueError(f"{option}.{name}: no such option; it has {', '.join(Bounds._fields)}")
        if bound_s is not None and not bound_s > 0:
            raise ValueError(f"{option}.{name}={bound_s}: must be above 0 or null")
