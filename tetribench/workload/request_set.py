"""The requests of a run as one value: fingerprinted, so that two systems can be shown to have served the same."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tetribench.core.request import DEFAULT_SLA_CLASS, Request
from tetribench.workload.prompts import random_prompts
from tetribench.workload.seeds import generator

_encode = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` makes a new encoder for each call


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSet:
    """Requests in order of arrival, with ids 0, 1, 2, ...

    `num_cut` of them were cut to the model's context; `num_skipped` rows of the source were failures, not requests.
    `texts` holds the prompts of a text workload by request id, for display: what is sent is `prompt_ids`. `sources`
    says which file each came from, where there are several.
    """

    name: str
    requests: list[Request]
    num_cut: int = 0
    num_skipped: int = 0
    texts: dict[int, str] = field(default_factory=dict)
    sources: dict[int, str] = field(default_factory=dict)

    def fingerprint(self, *, prompts: bool = True) -> str:
        """SHA-256 (hex) over arrivals, lengths, stops, labels and SLA classes, and with `prompts` the prompt ids.

        Hashed is one line of JSON per request, `[arrival_s,num_prompt_tokens,max_output_tokens,natural_stop,label]`,
        then the SLA class, a text, where it is not the default, then the list of prompt ids where there is one.
        """
        digest = hashlib.sha256()
        for request in self.requests:
            content: list[Any] = [
                float(request.arrival_s),
                request.num_prompt_tokens,
                request.max_output_tokens,
                request.natural_stop,
                request.label,
            ]
            if request.sla_class != DEFAULT_SLA_CLASS:
                content.append(request.sla_class)
            if prompts and request.prompt_ids:
                content.append(request.prompt_ids)
            digest.update(_encode(content).encode() + b"\n")
        return digest.hexdigest()

    def with_words(self, decode: Callable[[list[int]], str]) -> "RequestSet":
        """The same set, each request with its prompt in words: the text it was drawn as, else what its ids say."""
        requests = [
            replace(request, text=self.texts.get(request.id) or decode(list(request.prompt_ids)))
            for request in self.requests
        ]
        return replace(self, requests=requests)

    def with_prompts(self, vocab_size: int, seed: int) -> "RequestSet":
        """The same set with random prompts where there were none.

        They depend on the seed and on the fingerprint of the lengths, so neither a repeat with another seed nor another
        workload of the same seed meets its own prompts in a prefix cache.
        """
        empty = [request for request in self.requests if not request.prompt_ids]
        rng = generator(seed, f"workload/prompt_ids/{self.fingerprint(prompts=False)}")
        prompts = iter(random_prompts([request.num_prompt_tokens for request in empty], vocab_size, rng))
        requests = [
            request if request.prompt_ids else replace(request, prompt_ids=next(prompts)) for request in self.requests
        ]
        return replace(self, requests=requests)
