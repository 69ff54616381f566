"""Real prompts from several files at once, as evenly as the files last."""

from collections.abc import Iterator
from pathlib import Path

from tetribench.core.request import Request, class_of
from tetribench.workload.arrivals import Arrivals, check_rate
from tetribench.workload.checks import check_count
from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator
from tetribench.workload.spec import Tokenizer
from tetribench.workload.text import TextWorkload


class TextMixWorkload:
    """Prompts of the files `paths`, one of each in turn until a file is used up; prompts that occur twice come once.

    Files are read as `workload=text` reads one. Prompts over `max_prompt_tokens` are passed over. A response has at
    most `max_output_tokens`; stop tokens may end it earlier.
    """

    def __init__(
        self,
        *,
        paths: list[str],
        name: str = "text_mix",
        arrivals: Arrivals,
        chat: bool = True,
        num_requests: int = 16,
        max_prompt_tokens: int = 400,
        max_output_tokens: int = 128,
        request_rate: float | None = None,
    ) -> None:
        if not paths:
            raise ValueError("workload.paths=[]: name at least one file of prompts")
        check_count("workload.num_requests", num_requests)
        check_count("workload.max_prompt_tokens", max_prompt_tokens)
        check_count("workload.max_output_tokens", max_output_tokens)
        check_rate(arrivals, request_rate)
        self.files = [TextWorkload(path=path, arrivals=arrivals, request_rate=request_rate) for path in paths]
        self.name = name
        self.arrivals = arrivals
        self.chat = chat
        self.num_requests = num_requests
        self.max_prompt_tokens = max_prompt_tokens
        self.max_output_tokens = max_output_tokens
        self.request_rate = request_rate

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        if tokenizer is None:
            raise ValueError("workload.paths: text needs a model with a tokenizer, such as model=smollm2")
        arrivals_s = self.arrivals.times(self.num_requests, self.request_rate, generator(seed, "workload/arrivals"))
        requests: list[Request] = []
        texts, sources = {}, {}
        for text, source in self._in_turn(seed):
            prompt_ids = tuple(tokenizer.encode(text, self.chat))
            if len(prompt_ids) > self.max_prompt_tokens:
                continue
            index = len(requests)
            texts[index], sources[index] = text, source
            request = Request(
                id=index,
                arrival_s=arrivals_s[index],
                num_prompt_tokens=len(prompt_ids),
                max_output_tokens=self.max_output_tokens,
                natural_stop=True,
                label=class_of(len(prompt_ids), self.max_output_tokens),
                prompt_ids=prompt_ids,
            )
            requests.append(request)
            if len(requests) == self.num_requests:
                return RequestSet(name=self.name, requests=requests, texts=texts, sources=sources)
        raise ValueError(
            f"workload.num_requests={self.num_requests}: workload.paths have only {len(requests)} prompts of at most "
            f"workload.max_prompt_tokens={self.max_prompt_tokens}"
        )

    def _in_turn(self, seed: int) -> Iterator[tuple[str, str]]:
        """Different prompts and the name of their file, round after round over the files that still have some."""
        open_files = {Path(file.path).name.split(".")[0]: file.prompts(seed) for file in self.files}
        seen: set[str] = set()
        while open_files:
            for source, prompts in list(open_files.items()):
                prompt = next((prompt for prompt in prompts if prompt not in seen), None)
                if prompt is None:
                    del open_files[source]
                else:
                    seen.add(prompt)
                    yield prompt, source
