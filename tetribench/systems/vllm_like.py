"""vLLM: replicas that prefill and decode; prompts first, as the paper compared against it, or chunked and mixed in."""

from tetribench.systems.replicas import Replicas


class VllmLike(Replicas):
    """`scheduler` is the prefill-first one, or the mixed one for vLLM with chunked prefill."""
