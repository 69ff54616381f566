"""Real prompts, with responses that end where the model ends them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tetribench.core.request import Request, class_of
from tetribench.workload.arrivals import Arrivals, check_rate
from tetribench.workload.checks import check_count
from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator
from tetribench.workload.spec import Tokenizer

BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
"""How the `datasets` library calls the reader of each kind of file."""

PROMPT_FIELDS = ("question", "prompt", "instruction", "text", "turns", "conversations")
"""Where prompts are looked for, in this order. An `instruction` is followed by the `input` of the row, or of its first
one of `instances`, if there is one."""


class TextWorkload:
    """A sample without replacement of the prompts in a file or in a data set of the Hugging Face hub.

    `path` is a file (json, jsonl, csv, parquet or txt with a prompt a line; also .gz) or a hub id. `field` names the
    column of prompts; of a list of turns the first is taken. `max_output_tokens` bounds responses, which stop tokens
    may end earlier. `chat` wraps prompts in the model's chat template.
    """

    def __init__(
        self,
        *,
        path: str,
        arrivals: Arrivals,
        split: str = "train",
        field: str | None = None,
        chat: bool = True,
        num_requests: int = 16,
        max_output_tokens: int = 128,
        request_rate: float | None = None,
    ) -> None:
        check_count("workload.num_requests", num_requests)
        check_count("workload.max_output_tokens", max_output_tokens)
        check_rate(arrivals, request_rate)
        self.builder = _builder_of(path)
        self.path = path
        self.arrivals = arrivals
        self.split = split
        self.field = field
        self.chat = chat
        self.num_requests = num_requests
        self.max_output_tokens = max_output_tokens
        self.request_rate = request_rate

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        if tokenizer is None:
            raise ValueError(f"workload.path={self.path}: text needs a model with a tokenizer, such as model=smollm2")
        arrivals_s = self.arrivals.times(self.num_requests, self.request_rate, generator(seed, "workload/arrivals"))
        texts = dict(enumerate(self._sample(seed)))
        requests = []
        for index, text in texts.items():
            prompt_ids = tuple(tokenizer.encode(text, self.chat))
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
        return RequestSet(name=Path(self.path).name.split(".")[0], requests=requests, texts=texts)

    def _sample(self, seed: int) -> list[str]:
        """The first `num_requests` of the prompts."""
        sample = list(islice(self.prompts(seed), self.num_requests))
        if len(sample) < self.num_requests:
            raise ValueError(f"workload.num_requests={self.num_requests}: {self.path} has only {len(sample)} prompts")
        return sample

    def prompts(self, seed: int) -> Iterator[str]:
        """All prompts that are not blank, in an order that depends on the seed."""
        with _loaded(self.path, self.builder, self.split) as rows:
            field = self._prompt_field(rows.column_names)
            for index in generator(seed, "workload/text").permutation(len(rows)).tolist():
                prompt = _prompt_of(rows[index], field)
                if prompt.strip():
                    yield prompt

    def _prompt_field(self, columns: list[str]) -> str:
        for field in PROMPT_FIELDS if self.field is None else (self.field,):
            if field in columns:
                return field
        raise ValueError(
            f"workload.field={self.field}: must be the column with the prompts, one of {', '.join(columns)}"
        )


def _builder_of(path: str) -> str | None:
    """Which reader reads the file; None for a hub id."""
    builder = BUILDERS.get(Path(path.removesuffix(".gz")).suffix)
    if builder is not None and not Path(path).is_file():
        raise ValueError(f"workload.path={path}: there is no such file")
    if builder is None and Path(path).exists():
        raise ValueError(f"workload.path={path}: must be a file that ends in {', '.join(BUILDERS)}, or these with .gz")
    return builder


@contextmanager
def _loaded(path: str, builder: str | None, split: str) -> Iterator[Any]:
    """The rows as a `datasets.Dataset`; what the library prepares on disk is removed afterwards."""
    import datasets

    with TemporaryDirectory() as folder, _without_progress_bars():
        try:
            if builder is None:
                rows = datasets.load_dataset(path, split=split, cache_dir=folder)
            else:
                rows = datasets.load_dataset(builder, data_files={split: path}, split=split, cache_dir=folder)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).partition("\n")[0]
            kind = "hub id" if builder is None else "file"
            raise ValueError(f"workload.path={path}: cannot be loaded as a {kind}: {reason}") from error
        yield rows


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    import datasets

    was_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not was_disabled:
            datasets.enable_progress_bars()


def _prompt_of(row: dict[str, Any], field: str) -> str:
    prompt = row[field]
    if isinstance(prompt, list):
        prompt = prompt[0] if prompt else ""
    if isinstance(prompt, dict):
        prompt = prompt.get("content", prompt.get("value"))
    if prompt is None:
        return ""
    if not isinstance(prompt, str):
        raise ValueError(f"workload.field={field}: has a {type(prompt).__name__} where a prompt should be")
    if field == "instruction":
        first = next(iter(row.get("instances") or [row]))
        return f"{prompt}\n\n{first['input']}" if first.get("input") else prompt
    return prompt
