"""The folder of a run: its name, its state, and the files that are not the report's."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tetribench.workload.request_set import RequestSet

RUN_SCHEMA_VERSION = 4
"""Of run.json and the layout of the run folder."""


class RunFolder:
    """`<out>/<name>/`, new and empty; `status.json` says from the first moment on whether it is whole.

    Without a `name` it is called after the moment and `what`, with a number behind it where that is taken. Raises
    ValueError where a given `name` is taken.
    """

    def __init__(self, out: Path, name: str | None, what: str) -> None:
        moment = datetime.now(UTC)
        self.created = moment.isoformat(timespec="seconds")
        self.path = _made(out, name) if name is not None else _made_unused(out, f"{moment:%Y%m%d-%H%M%S}-{what}")
        self._set("running")

    @contextmanager
    def status(self) -> Iterator[None]:
        """Whatever ends the run, the folder says so."""
        try:
            yield
        except (KeyboardInterrupt, asyncio.CancelledError):
            self._set("interrupted", "stopped by the user")
            raise
        except BaseException as error:
            self._set("failed", str(error))
            raise
        self._set("complete")

    def _set(self, state: str, reason: str | None = None) -> None:
        self.write_json("status.json", {"state": state, "reason": reason})

    def write_json(self, name: str, content: Any) -> None:
        write_json(self.path / name, content)

    def repeat(self, repeat: int) -> Path:
        """The folder of everything that was served on the same requests."""
        folder = self.path / "repeats" / str(repeat)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def slot(self, repeat: int, slot: int, system: str) -> Path:
        """The folder of one serving of these requests."""
        folder = self.repeat(repeat) / f"{slot}-{system}"
        folder.mkdir()
        return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _made(out: Path, name: str) -> Path:
    try:
        (out / name).mkdir(parents=True)
    except FileExistsError:
        raise ValueError(f"name={name}: {out / name} exists already; choose another name") from None
    return out / name


def _made_unused(out: Path, name: str) -> Path:
    """Jobs of a sweep begin within the same second."""
    number = 1
    while True:
        path = out / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def write_outputs(folder: Path, requests: RequestSet, outputs: dict[int, list[int]], tokenizer: Any) -> None:
    """Every response: its token ids, and its text and its prompt's where there is a tokenizer."""
    encoder = msgspec.json.Encoder()
    with (folder / "outputs.jsonl").open("wb") as file:
        for request in requests.requests:
            token_ids = outputs.get(request.id, [])
            line = {
                "request": request.id,
                "prompt": None if tokenizer is None else tokenizer.decode(list(request.prompt_ids)),
                "text": None if tokenizer is None else tokenizer.decode(token_ids),
                "token_ids": token_ids,
            }
            file.write(encoder.encode(line) + b"\n")
