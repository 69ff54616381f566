"""English prompts of exact length: what a model with a tokenizer is asked when only lengths are drawn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator
from tetribench.workload.spec import Tokenizer

if TYPE_CHECKING:
    from numpy.random import Generator

QUESTION = "\n\nExplain in plain words what the text above says."


def corpus() -> str:
    """The prose of the Python language reference, which ships with every CPython: real English, no download."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def with_prose(request_set: RequestSet, tokenizer: Tokenizer, seed: int) -> RequestSet:
    """The same set with a passage of English, from a random place, wherever a request has no prompt yet.

    Each prompt has exactly its drawn number of tokens: the passage is cut, the question and the chat template are kept.
    Prompts too short for these are passage only. The passage comes before the question, so that prompts share no more
    of their beginning than the template's.
    """
    rng = generator(seed, f"workload/prose/{request_set.fingerprint(prompts=False)}")
    lengths = [request.num_prompt_tokens for request in request_set.requests if not request.prompt_ids]
    made = iter(_prompts(lengths, tokenizer, rng))
    requests = [
        request if request.prompt_ids else replace(request, prompt_ids=next(made)) for request in request_set.requests
    ]
    return replace(request_set, requests=requests)


def _prompts(lengths: Sequence[int], tokenizer: Tokenizer, rng: "Generator") -> list[tuple[int, ...]]:
    text = corpus()
    before, after = _frame(tokenizer)
    prompts = []
    for length in lengths:
        num_passage = length - len(before) - len(after)
        head, tail = (before, after) if num_passage > 0 else ([], [])
        passage = _passage(text, length - len(head) - len(tail), tokenizer, rng)
        prompts.append((*head, *passage, *tail))
    return prompts


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What comes before a passage (of the chat template) and after it (the question, and the template's end)."""
    one, two = (tokenizer.encode(letter + QUESTION, chat=True) for letter in "xy")
    before = next(index for index, (left, right) in enumerate(zip(one, two, strict=False)) if left != right)
    return one[:before], one[before + 1 :]


def _passage(text: str, num_tokens: int, tokenizer: Tokenizer, rng: "Generator") -> list[int]:
    """`num_tokens` tokens that begin at a random word."""
    num_letters = 8 * num_tokens + 200  # more than enough: English has about four letters a token
    start = text.index(" ", int(rng.integers(0, len(text) - num_letters))) + 1
    ids = tokenizer.encode(text[start : start + num_letters], chat=False)
    assert len(ids) >= num_tokens
    return ids[:num_tokens]
