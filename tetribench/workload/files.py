"""Request sets as JSON lines: written once, then served again byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tetribench.core.request import DEFAULT_SLA_CLASS, Request
from tetribench.workload.checks import check_sla_class
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Tokenizer

FORMAT = "tetribench-requests"
VERSION = 1


class Header(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """First line of the file. `prompts` says whether its lines, and so its fingerprint, hold the prompt ids."""

    format: str = FORMAT
    version: int = VERSION
    name: str
    num_cut: int
    num_skipped: int
    prompts: bool
    fingerprint: str


class Line(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One request, without what is at its default; its id is its place in the file, from 0."""

    arrival_s: float
    num_prompt_tokens: int
    max_output_tokens: int
    label: str = ""
    sla_class: str = DEFAULT_SLA_CLASS
    natural_stop: bool = False
    prompt_ids: tuple[int, ...] = ()
    text: str | None = None


class FileWorkload:
    """The requests in a file that `write` made, as they are."""

    def __init__(self, *, path: str) -> None:
        if not Path(path).is_file():
            raise ValueError(f"workload.path={path}: there is no such file")
        self.path = path

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        return read(self.path)


def write(request_set: RequestSet, path: str | Path, *, prompts: bool = False) -> None:
    """Write lengths and arrivals, and only if `prompts` the prompt ids and texts, which are far larger."""
    header = Header(
        name=request_set.name,
        num_cut=request_set.num_cut,
        num_skipped=request_set.num_skipped,
        prompts=prompts,
        fingerprint=request_set.fingerprint(prompts=prompts),
    )
    with Path(path).open("wb") as file:
        for item in (header, *_lines(request_set, prompts)):
            file.write(msgspec.json.encode(item) + b"\n")


def _lines(request_set: RequestSet, prompts: bool) -> Iterator[Line]:
    for request in request_set.requests:
        yield Line(
            arrival_s=float(request.arrival_s),
            num_prompt_tokens=request.num_prompt_tokens,
            max_output_tokens=request.max_output_tokens,
            label=request.label,
            sla_class=request.sla_class,
            natural_stop=request.natural_stop,
            prompt_ids=request.prompt_ids if prompts else (),
            text=request_set.texts.get(request.id) if prompts else None,
        )


def read(path: str | Path) -> RequestSet:
    """Read what `write` wrote. Raises ValueError if it is something else, of another version, or was changed since."""
    raw_header, *raw_lines = Path(path).read_bytes().split(b"\n")
    try:
        header = _header(raw_header)
        lines = [msgspec.json.decode(raw, type=Line) for raw in raw_lines if raw]
        for sla_class in sorted({line.sla_class for line in lines}):
            check_sla_class("sla_class", sla_class)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"workload.path={path}: not a file of requests: {error}") from error
    requests = [
        Request(
            id=index,
            arrival_s=line.arrival_s,
            num_prompt_tokens=line.num_prompt_tokens,
            max_output_tokens=line.max_output_tokens,
            natural_stop=line.natural_stop,
            label=line.label,
            sla_class=line.sla_class,
            prompt_ids=line.prompt_ids,
        )
        for index, line in enumerate(lines)
    ]
    request_set = RequestSet(
        name=header.name,
        requests=requests,
        num_cut=header.num_cut,
        num_skipped=header.num_skipped,
        texts={index: line.text for index, line in enumerate(lines) if line.text is not None},
    )
    if request_set.fingerprint() != header.fingerprint:
        raise ValueError(f"workload.path={path}: its requests do not have the fingerprint that its first line states")
    return request_set


def _header(raw: bytes) -> Header:
    header = msgspec.json.decode(raw)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"its first line lacks format {FORMAT}")
    if header.get("version") != VERSION:
        raise ValueError(f"its version is {header.get('version')}, legal is {VERSION}")
    return msgspec.convert(header, Header)
