"""To which prefill (or colocated) instance a new request goes (paper section 3.2)."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Outstanding:
    """What the global scheduler has sent to one instance and not yet seen come back."""

    num_requests: int = 0
    num_prompt_tokens: int = 0
    """Prompt tokens of requests whose first token has not come back."""


class Router(Protocol):
    def choose(self, outstanding: dict[str, Outstanding], num_routed: int) -> str:
        """Pick one of the instances (never empty) for the request that follows `num_routed` others."""


class LeastQueuedTokens:
    """Least prompt tokens still to prefill; ties go to the fewest requests, then to the first by name.

    The paper says "least loaded" and leaves load open. This is our definition, because prompt tokens are the work that
    a prefill instance has.
    """

    def choose(self, outstanding: dict[str, Outstanding], num_routed: int) -> str:
        return min(outstanding, key=lambda n: (outstanding[n].num_prompt_tokens, outstanding[n].num_requests, n))


class LeastRequests:
    """Fewest unfinished requests, as load balancers before replicas of a server do.

    Ties go to the fewest prompt tokens still to prefill, then to the first by name.
    """

    def choose(self, outstanding: dict[str, Outstanding], num_routed: int) -> str:
        return min(outstanding, key=lambda n: (outstanding[n].num_requests, outstanding[n].num_prompt_tokens, n))


class RoundRobin:
    """Each in turn, whatever its load."""

    def choose(self, outstanding: dict[str, Outstanding], num_routed: int) -> str:
        names = sorted(outstanding)
        return names[num_routed % len(names)]
