"""How much of a device requests take: what makes a stream of one class as heavy as a stream of another."""

from dataclasses import dataclass
from statistics import mean

from tetribench.calibrate.section3 import prompts
from tetribench.calibrate.steps import Step
from tetribench.paper.points import Timer
from tetribench.workload.interference import HEAVY_PROMPT, RequestClass

BATCH = 32
"""Decodes that share an iteration: with more, throughput grows little (paper figure 2b)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """`device_s` by class: seconds of a device that a request takes where prompts are computed in full iterations (512
    tokens, from where throughput is flat, paper figure 2a) and decodes in batches of 32. `stay_s` is how long the
    longest class then decodes."""

    device_s: dict[RequestClass, float]
    stay_s: float


def demand(timer: Timer, length_scale: float) -> Demand:
    """Of requests whose lengths are multiplied by `length_scale`."""
    classes = list(RequestClass)
    prompt_tokens = {one: length_scale * one.prompt_tokens for one in classes}
    output_tokens = {one: length_scale * mean(one.output_tokens) for one in classes}
    full = max(1, round(length_scale * HEAVY_PROMPT))
    contexts = {one: max(2, round(prompt_tokens[one] + output_tokens[one] / 2)) for one in classes}
    steps = [Step(prompts(full)), *(Step((), (contexts[one],) * BATCH) for one in classes)]
    full_s, *decodes_s = (timing.seconds for timing in timer(steps))
    step_s = dict(zip(classes, decodes_s, strict=True))
    return Demand(
        device_s={
            one: prompt_tokens[one] * full_s / full + output_tokens[one] * step_s[one] / BATCH for one in classes
        },
        stay_s=max(output_tokens[one] * step_s[one] for one in classes),
    )
