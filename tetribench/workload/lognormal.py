"""Requests around one size, for maps over sizes: lengths are log-normal with chosen medians."""

from typing import TYPE_CHECKING

from tetribench.core.request import DEFAULT_SLA_CLASS
from tetribench.workload.arrivals import Arrivals, check_rate
from tetribench.workload.checks import check_count
from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator
from tetribench.workload.spec import Tokenizer, to_requests

if TYPE_CHECKING:
    from numpy.random import Generator


class LognormalWorkload:
    """`num_requests` requests with prompts around `prompt_tokens` and outputs around `output_tokens`, the medians.

    `spread` is the standard deviation of the logarithm of both: with 0.5, nine of ten lengths are between 0.44 and 2.3
    times the median; with 0 all are equal. `request_rate` is in requests per second.
    """

    def __init__(
        self,
        *,
        name: str,
        arrivals: Arrivals,
        prompt_tokens: int = 256,
        output_tokens: int = 64,
        spread: float = 0.5,
        num_requests: int = 128,
        request_rate: float | None = None,
    ) -> None:
        check_count("workload.prompt_tokens", prompt_tokens)
        check_count("workload.output_tokens", output_tokens)
        check_count("workload.num_requests", num_requests)
        if not 0 <= spread <= 3:
            raise ValueError(f"workload.spread={spread}: must be at least 0 and at most 3")
        check_rate(arrivals, request_rate)
        self.name = name
        self.arrivals = arrivals
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.spread = spread
        self.num_requests = num_requests
        self.request_rate = request_rate

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        arrivals_s = self.arrivals.times(self.num_requests, self.request_rate, generator(seed, "workload/arrivals"))
        prompts = self._around(self.prompt_tokens, generator(seed, "workload/prompt"))
        outputs = self._around(self.output_tokens, generator(seed, "workload/output"))
        lengths = zip(prompts, outputs, strict=True)
        requests = to_requests(arrivals_s, lengths, [DEFAULT_SLA_CLASS] * self.num_requests, (1.0, 1.0))
        return RequestSet(name=self.name, requests=requests)

    def _around(self, median: int, rng: "Generator") -> list[int]:
        factors = rng.lognormal(0.0, self.spread, self.num_requests).tolist()
        return [max(1, round(median * factor)) for factor in factors]
