"""Victims beside aggressors: two streams of requests of the sizes of the paper's interference study (section 3)."""

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from tetribench.core.request import Request
from tetribench.workload.arrivals import Arrivals
from tetribench.workload.checks import check_count, check_positive
from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator
from tetribench.workload.spec import Tokenizer

if TYPE_CHECKING:
    from numpy.random import Generator

AGGRESSOR = "aggressor"
"""The label of every aggressor."""

LIGHT_PROMPT, HEAVY_PROMPT = 18, 512
LIGHT_OUTPUT, HEAVY_OUTPUT = (20, 100), (513, 640)
"""Tokens (paper section 3). It says of heavy decodes that they are longer than 512; how much is ours."""


class RequestClass(Enum):
    """Light (L) or heavy (H) prefill (P) and decode (D)."""

    LPLD = "LPLD"
    LPHD = "LPHD"
    HPLD = "HPLD"
    HPHD = "HPHD"

    @property
    def prompt_tokens(self) -> int:
        return HEAVY_PROMPT if self.value.startswith("HP") else LIGHT_PROMPT

    @property
    def output_tokens(self) -> tuple[int, int]:
        """The shortest and the longest; all in between are as likely."""
        return HEAVY_OUTPUT if self.value.endswith("HD") else LIGHT_OUTPUT

    @property
    def victim(self) -> str:
        """The label of a victim of this class."""
        return f"victim {self.value}"


LONGEST_TOKENS = HEAVY_PROMPT + HEAVY_OUTPUT[1]
"""What a model's context must hold at `length_scale` 1."""


class InterferenceWorkload:
    """`num_victims` of each class, in a drawn order, one every 1 / `victim_rate` seconds; and aggressors of one class.

    Aggressors come `lead_s` before the first victim and until `tail_s` after the last one, `aggressor_rate` a second.
    Without them the victims are the same: arrivals and lengths depend on the seed alone. Lengths are multiplied by
    `length_scale`.
    """

    def __init__(
        self,
        *,
        name: str,
        arrivals: Arrivals,
        victim_rate: float,
        num_victims: int = 8,
        aggressor: RequestClass | None = None,
        aggressor_rate: float | None = None,
        lead_s: float = 0.0,
        tail_s: float = 0.0,
        length_scale: float = 1.0,
    ) -> None:
        check_positive("workload.victim_rate", victim_rate)
        check_count("workload.num_victims", num_victims)
        check_positive("workload.length_scale", length_scale)
        if (aggressor is None) != (aggressor_rate is None):
            raise ValueError(
                f"workload.aggressor_rate={aggressor_rate}: must be given with workload.aggressor, and not without"
            )
        if aggressor_rate is not None:
            check_positive("workload.aggressor_rate", aggressor_rate)
        if not arrivals.needs_rate:
            raise ValueError(
                f"arrivals@workload.arrivals={arrivals.name}: aggressors come at a rate; "
                "must be constant, poisson or gamma"
            )
        for option, seconds in {"lead_s": lead_s, "tail_s": tail_s}.items():
            if seconds < 0:
                raise ValueError(f"workload.{option}={seconds}: must not be negative")
        self.name = name
        self.arrivals = arrivals
        self.victim_rate = victim_rate
        self.num_victims = num_victims
        self.aggressor = aggressor
        self.aggressor_rate = aggressor_rate
        self.lead_s = lead_s
        self.tail_s = tail_s
        self.length_scale = length_scale

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        victims = self._victims(seed)
        in_order = sorted([*victims, *self._aggressors(seed, victims[-1].arrival_s)], key=lambda one: one.arrival_s)
        return RequestSet(name=self.name, requests=[replace(one, id=id) for id, one in enumerate(in_order)])

    def _victims(self, seed: int) -> list[Request]:
        classes = [one for one in RequestClass for _ in range(self.num_victims)]
        order = generator(seed, "workload/victims").permutation(len(classes))
        rng = generator(seed, "workload/victim_output")
        return [
            self._request(classes[place], classes[place].victim, self.lead_s + index / self.victim_rate, rng)
            for index, place in enumerate(order.tolist())
        ]

    def _aggressors(self, seed: int, last_victim_s: float) -> list[Request]:
        if self.aggressor is None:
            return []
        rng = generator(seed, "workload/aggressor_output")
        arrivals_s = self._arrivals_until(last_victim_s + self.tail_s, seed)
        return [self._request(self.aggressor, AGGRESSOR, arrival_s, rng) for arrival_s in arrivals_s]

    def _arrivals_until(self, end_s: float, seed: int) -> list[float]:
        num = 16
        while True:  # a longer draw begins with the shorter one
            arrivals_s = self.arrivals.times(num, self.aggressor_rate, generator(seed, "workload/arrivals"))
            if arrivals_s[-1] > end_s:
                return [arrival_s for arrival_s in arrivals_s if arrival_s <= end_s]
            num *= 2

    def _request(self, one: RequestClass, label: str, arrival_s: float, rng: "Generator") -> Request:
        shortest, longest = one.output_tokens
        return Request(
            id=0,  # they are counted when all are there
            arrival_s=arrival_s,
            num_prompt_tokens=max(1, round(one.prompt_tokens * self.length_scale)),
            max_output_tokens=max(1, round(int(rng.integers(shortest, longest + 1)) * self.length_scale)),
            label=label,
        )
