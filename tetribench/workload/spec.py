"""What a workload is, and the way from columns of lengths to requests."""

from collections.abc import Iterable
from typing import Protocol

from tetribench.core.request import Request, class_of
from tetribench.workload.request_set import RequestSet


class Tokenizer(Protocol):
    def encode(self, text: str, chat: bool) -> list[int]:
        """Token ids of a prompt; with `chat`, of a user's turn in the model's chat template."""


class Workload(Protocol):
    def draw(self, seed: int, tokenizer: Tokenizer | None) -> RequestSet:
        """Requests in order of arrival, lengths scaled but not yet cut to a model's context."""


def to_requests(
    arrivals_s: Iterable[float],
    lengths: Iterable[tuple[int, int]],
    sla_classes: Iterable[str],
    scales: tuple[float, float],
) -> list[Request]:
    """Requests of these (prompt, output) lengths times `scales`, labelled by their lengths before that."""
    prompt_scale, output_scale = scales
    return [
        Request(
            id=index,
            arrival_s=arrival_s,
            num_prompt_tokens=max(1, round(num_prompt * prompt_scale)),
            max_output_tokens=max(1, round(num_output * output_scale)),
            label=class_of(num_prompt, num_output),
            sla_class=sla_class,
        )
        for index, (arrival_s, (num_prompt, num_output), sla_class) in enumerate(
            zip(arrivals_s, lengths, sla_classes, strict=True)
        )
    ]
