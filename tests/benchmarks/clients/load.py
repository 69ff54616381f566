"""The load that each client puts on the server: a closed loop, prompts and responses all of one length."""

from dataclasses import dataclass

NUM_PROMPT_TOKENS = 300
NUM_OUTPUT_TOKENS = 64
TTFT_S = 0.05
GAP_S = 0.01
"""A GPU with a small model. Streams that begin together stay together, so that the chunks of all come at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """`num_streams` requests in flight at all times, until there have been `num_requests`."""

    num_streams: int
    num_requests: int


@dataclass(frozen=True, slots=True)
class Ttft:
    """As somebody reports it, in milliseconds, over `num_requests` of them."""

    num_requests: int
    mean_ms: float
    p99_ms: float
