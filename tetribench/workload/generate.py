"""From a workload and a seed to the requests of a run."""

from dataclasses import replace

from tetribench.core.request import Request
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Tokenizer, Workload


def generate(workload: Workload, seed: int, max_context_tokens: int, tokenizer: Tokenizer | None = None) -> RequestSet:
    """Draw the requests and cut those that do not fit in the model's context.

    A prompt is cut at its end and leaves room for one output token; then the output is cut to what remains.
    """
    if max_context_tokens < 2:
        raise ValueError(
            f"model.max_context_tokens={max_context_tokens}: must be at least 2, a prompt and an output token"
        )
    drawn = workload.draw(seed, tokenizer)
    requests = [
        request if request.num_tokens <= max_context_tokens else _cut(request, max_context_tokens)
        for request in drawn.requests
    ]
    num_cut = sum(request.num_tokens > max_context_tokens for request in drawn.requests)
    return replace(drawn, requests=requests, num_cut=drawn.num_cut + num_cut)


def _cut(request: Request, max_context_tokens: int) -> Request:
    num_prompt = min(request.num_prompt_tokens, max_context_tokens - 1)
    return replace(
        request,
        num_prompt_tokens=num_prompt,
        max_output_tokens=min(request.max_output_tokens, max_context_tokens - num_prompt),
        prompt_ids=request.prompt_ids[:num_prompt],
    )
