"""Recorded traffic: when requests came and how long they were, from the files in which traces are published."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from tetribench.core.request import DEFAULT_SLA_CLASS
from tetribench.workload.checks import check_count, check_positive, check_sla_class
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Tokenizer, to_requests
from tetribench.workload.tables import Row, check_table, read_rows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Column names of one family of traces; `parse_time` yields `ticks_per_s` a second.

    With `zero_output_is_failure` a row without output is a failed call, which is skipped and counted. `sla_class` is a
    column that may be missing or empty, for requests of the default class.
    """

    name: str
    time: str
    prompt: str
    output: str
    parse_time: Callable[[Any], float] = float
    ticks_per_s: int = 1
    zero_output_is_failure: bool = False
    sla_class: str | None = None

    @property
    def columns(self) -> tuple[str, str, str]:
        """Those that must be there."""
        return self.time, self.prompt, self.output


def _parse_wall_clock(value: Any) -> int:
    """Microseconds since 1970, whole so that differences are exact; a time without a zone is taken as UTC."""
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


LAYOUTS = (
    Layout(
        name="Azure LLM",  # github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023
        time="TIMESTAMP",
        prompt="ContextTokens",
        output="GeneratedTokens",
        parse_time=_parse_wall_clock,
        ticks_per_s=1_000_000,
    ),
    Layout(
        name="Mooncake",  # github.com/kvcache-ai/Mooncake, FAST25-release; times in milliseconds
        time="timestamp",
        prompt="input_length",
        output="output_length",
        ticks_per_s=1000,
    ),
    Layout(
        name="BurstGPT",  # github.com/HPMLL/BurstGPT
        time="Timestamp",
        prompt="Request tokens",
        output="Response tokens",
        zero_output_is_failure=True,
    ),
    Layout(name="generic", time="arrival_s", prompt="prompt_tokens", output="output_tokens", sla_class="sla_class"),
)


class TraceWorkload:
    """A trace's rows from `start_s` seconds after its first on, `num_requests` of them or all.

    Times count from the first row taken and are divided by `rate_scale`: 2 doubles the rate and keeps the pattern.
    """

    def __init__(
        self,
        *,
        path: str,
        start_s: float = 0.0,
        num_requests: int | None = None,
        rate_scale: float = 1.0,
        length_scale: float = 1.0,
    ) -> None:
        check_table("workload.path", path)
        if not 0 <= start_s < math.inf:
            raise ValueError(f"workload.start_s={start_s}: must be at least 0 and finite")
        if num_requests is not None:
            check_count("workload.num_requests", num_requests)
        check_positive("workload.rate_scale", rate_scale)
        check_positive("workload.length_scale", length_scale)
        self.path = path
        self.start_s = start_s
        self.num_requests = num_requests
        self.rate_scale = rate_scale
        self.length_scale = length_scale

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        times_s: list[float] = []
        lengths: list[tuple[int, int]] = []
        sla_classes: list[str] = []
        num_skipped = 0
        for time_s, num_prompt, num_output, sla_class in _read_trace(self.path):
            if time_s < self.start_s:
                continue
            if num_output == 0:
                num_skipped += 1
                continue
            times_s.append(time_s)
            lengths.append((num_prompt, num_output))
            sla_classes.append(sla_class)
            if len(times_s) == self.num_requests:
                break
        if not times_s:
            raise ValueError(f"workload.path={self.path}: no requests at or after workload.start_s={self.start_s}")
        arrivals_s = [(time_s - times_s[0]) / self.rate_scale for time_s in times_s]
        requests = to_requests(arrivals_s, lengths, sla_classes, (self.length_scale, self.length_scale))
        return RequestSet(name=Path(self.path).name.split(".")[0], requests=requests, num_skipped=num_skipped)


def _read_trace(path: str) -> Iterator[tuple[float, int, int, str]]:
    """Seconds since the first row, prompt and output tokens, SLA class; no output tokens in a row that failed."""
    rows = read_rows("workload.path", path)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"workload.path={path}: there are no rows in it")
    layout = _layout_of(path, first)
    origin = last = None
    for number, row in enumerate(chain([first], rows), 1):
        try:
            ticks, num_prompt, num_output = _parse(layout, row)
            sla_class = _sla_class(layout, row)
            if last is not None and ticks < last:
                raise ValueError(f"{layout.time}={row[layout.time]} is earlier than the row before; sort the trace")
        except ValueError as error:
            raise ValueError(f"workload.path={path}: row {number}: {error}") from error
        origin, last = ticks if origin is None else origin, ticks
        yield (ticks - origin) / layout.ticks_per_s, num_prompt, num_output, sla_class


def _layout_of(path: str, row: Row) -> Layout:
    for layout in LAYOUTS:
        if row.keys() >= set(layout.columns):
            return layout
    legal = "; ".join(f"{', '.join(layout.columns)} ({layout.name})" for layout in LAYOUTS)
    raise ValueError(f"workload.path={path}: has columns {', '.join(map(str, row))}; needed are {legal}")


def _parse(layout: Layout, row: Row) -> tuple[float, int, int]:
    try:
        ticks = layout.parse_time(row.get(layout.time))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{layout.time}={row.get(layout.time)!r:.40} is not a time") from error
    if not 0 <= ticks < math.inf:
        raise ValueError(f"{layout.time}={row[layout.time]} must be at least 0 and finite")
    least_output = 0 if layout.zero_output_is_failure else 1
    return ticks, _parse_length(layout.prompt, row, 1), _parse_length(layout.output, row, least_output)


def _parse_length(column: str, row: Row, least: int) -> int:
    try:
        length = float(row[column])
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{column}={row.get(column)!r:.40} is not a number of tokens") from error
    if not (length.is_integer() and length >= least):
        raise ValueError(f"{column}={row[column]} must be a whole number of tokens, at least {least}")
    return int(length)


def _sla_class(layout: Layout, row: Row) -> str:
    column = layout.sla_class
    if column is None or row.get(column) in (None, ""):
        return DEFAULT_SLA_CLASS
    name = str(row[column])
    check_sla_class(column, name)
    return name
