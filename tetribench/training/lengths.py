"""How long a model's own responses are: the file that a length predictor learns from (paper section 3.3.2)."""

from collections.abc import Iterator
from pathlib import Path

import msgspec


class Length(msgspec.Struct, kw_only=True, frozen=True):
    """One prompt, a line of the file, and what `model` made of it, decoding greedily to its natural stop.

    `was_capped` says that it was still writing at `max_output_tokens`. `source` is the file of the prompt.
    """

    prompt: str
    source: str
    model: str
    num_prompt_tokens: int
    num_output_tokens: int
    max_output_tokens: int
    was_capped: bool


def read_lengths(path: Path) -> list[Length]:
    """Raises ValueError for a line that is something else; a last line cut off by an interruption is left out."""
    return list(_lines(path))


def _lines(path: Path) -> Iterator[Length]:
    content = path.read_bytes()
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            yield msgspec.json.decode(line, type=Length)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: line {number} is not a measured response length: {error}") from error


def append(path: Path, lengths: list[Length]) -> None:
    """Add lines that are whole or not there."""
    with path.open("ab") as file:
        file.write(b"".join(msgspec.json.encode(length) + b"\n" for length in lengths))
