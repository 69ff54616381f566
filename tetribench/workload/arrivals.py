"""Arrival processes: absolute times, drawn and never rescaled afterwards (a rescaled Poisson process is not one)."""

from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from tetribench.workload.checks import check_positive

if TYPE_CHECKING:
    from numpy.random import Generator


class Arrivals(Protocol):
    name: ClassVar[str]
    needs_rate: ClassVar[bool]

    @property
    def cv(self) -> float | None:
        """Coefficient of variation of the gaps, which are independent; None where there are no gaps."""

    def times(self, num_requests: int, request_rate: float | None, rng: "Generator") -> list[float]:
        """Arrival times in seconds, ascending. More requests of the same seed begin with the same times."""


class AtOnce:
    """Everything at time 0 (inferred to be the paper's way, section 5)."""

    name: ClassVar[str] = "at_once"
    needs_rate: ClassVar[bool] = False
    cv: float | None = None

    def times(self, num_requests: int, request_rate: float | None, rng: "Generator") -> list[float]:
        return [0.0] * num_requests


class Constant:
    """Equal gaps, the first request at time 0."""

    name: ClassVar[str] = "constant"
    needs_rate: ClassVar[bool] = True
    cv: float | None = 0.0

    def times(self, num_requests: int, request_rate: float | None, rng: "Generator") -> list[float]:
        assert request_rate is not None
        return [index / request_rate for index in range(num_requests)]


class Poisson:
    """Independent exponential gaps, the first one before the first request."""

    name: ClassVar[str] = "poisson"
    needs_rate: ClassVar[bool] = True
    cv: float | None = 1.0

    def times(self, num_requests: int, request_rate: float | None, rng: "Generator") -> list[float]:
        assert request_rate is not None
        return list(accumulate(rng.exponential(1.0 / request_rate, num_requests).tolist()))


class Gamma:
    """Independent gamma gaps, whose coefficient of variation is `burstiness`: 1 is Poisson, above is burstier."""

    name: ClassVar[str] = "gamma"
    needs_rate: ClassVar[bool] = True

    def __init__(self, *, burstiness: float = 2.0) -> None:
        check_positive("workload.arrivals.burstiness", burstiness)
        self.burstiness = burstiness

    @property
    def cv(self) -> float | None:
        return self.burstiness

    def times(self, num_requests: int, request_rate: float | None, rng: "Generator") -> list[float]:
        assert request_rate is not None
        shape = self.burstiness**-2
        return list(accumulate(rng.gamma(shape, 1.0 / (request_rate * shape), num_requests).tolist()))


class ArrivalProcess(NamedTuple):
    """Independent gaps around `1 / rate_per_s`, gamma distributed; all equal where their `cv` is 0."""

    rate_per_s: float
    cv: float


@runtime_checkable
class _Drawn(Protocol):
    """A workload whose arrivals all come from one process."""

    arrivals: Arrivals
    request_rate: float | None


def asked_process(workload: object) -> ArrivalProcess | None:
    """What the arrivals of a workload are drawn from; None where that is no one process with gaps."""
    if not isinstance(workload, _Drawn) or workload.request_rate is None or workload.arrivals.cv is None:
        return None
    return ArrivalProcess(workload.request_rate, workload.arrivals.cv)


def check_rate(arrivals: Arrivals, request_rate: float | None) -> None:
    """A rate is given exactly where the process has one; anything else would be ignored without a word."""
    if request_rate is None:
        if arrivals.needs_rate:
            raise ValueError(f"workload.request_rate: a rate in requests/s is needed by arrivals {arrivals.name}")
        return
    check_positive("workload.request_rate", request_rate)
    if not arrivals.needs_rate:
        raise ValueError(
            f"workload.request_rate={request_rate}: arrivals {arrivals.name} has no rate; "
            "choose arrivals@workload.arrivals=constant, poisson or gamma"
        )
