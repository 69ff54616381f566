import gzip
import json
import math
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tetribench.core.request import Request
from tetribench.workload.generate import generate
from tetribench.workload.traces import TraceWorkload

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,600,109
2023-11-16 18:15:51.2224670,879,155
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
5,ChatGPT,1087,0,1087,API log
118.5,GPT-4,417,276,693,Conversation log
"""
GENERIC = "arrival_s,prompt_tokens,output_tokens\n1.5,10,20\n2.0,600,20\n4.0,10,200\n9.0,600,200\n"
MOONCAKE = """{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}

{"timestamp": 3027, "input_length": 12, "output_length": 7, "hash_ids": [0, 14]}
"""


def write(path: Path, content: str) -> str:
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return str(path)


def shape(requests: list[Request]) -> list[tuple[float, int, int, str]]:
    return [(r.arrival_s, r.num_prompt_tokens, r.max_output_tokens, r.label) for r in requests]


def refused(path: str, **options: Any) -> str:
    with pytest.raises(ValueError) as error:
        TraceWorkload(path=path, **options).draw(0)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"workload.path={path}: ")


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_azure(tmp_path: Path, name: str) -> None:
    drawn = TraceWorkload(path=write(tmp_path / name, AZURE)).draw(0)
    assert drawn.name == "trace"
    assert shape(drawn.requests) == [(0.0, 374, 44, "LPLD"), (4.314579, 600, 109, "HPLD"), (4.541877, 879, 155, "HPHD")]
    assert [request.id for request in drawn.requests] == [0, 1, 2]


def test_azure_times_may_have_a_zone(tmp_path: Path) -> None:
    content = AZURE.replace("50.9951690,", "50.995169+00:00,")
    assert TraceWorkload(path=write(tmp_path / "zone.csv", content)).draw(0).requests[1].arrival_s == 4.314579


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_mooncake(tmp_path: Path, name: str) -> None:
    drawn = TraceWorkload(path=write(tmp_path / name, MOONCAKE)).draw(0)
    assert shape(drawn.requests) == [(0.0, 6758, 500, "HPHD"), (0.027, 12, 7, "LPLD")]


def test_burstgpt_rows_without_response_are_skipped_and_counted(tmp_path: Path) -> None:
    drawn = TraceWorkload(path=write(tmp_path / "trace.csv", BURSTGPT)).draw(0)
    assert shape(drawn.requests) == [(0.0, 472, 18, "LPLD"), (113.5, 417, 276, "LPHD")]
    assert drawn.num_skipped == 1


def test_generic(tmp_path: Path) -> None:
    drawn = TraceWorkload(path=write(tmp_path / "trace.csv", "\ufeff" + GENERIC)).draw(0)
    assert [request.arrival_s for request in drawn.requests] == [0.0, 0.5, 2.5, 7.5]
    assert [request.label for request in drawn.requests] == ["LPLD", "HPLD", "LPHD", "HPHD"]


def test_generic_with_sla_classes(tmp_path: Path) -> None:
    content = "arrival_s,prompt_tokens,output_tokens,sla_class\n1,2,3,batch\n2,2,3,\n3,2,3,interactive\n4,2,3\n"
    drawn = TraceWorkload(path=write(tmp_path / "trace.csv", content)).draw(0)
    assert [request.sla_class for request in drawn.requests] == ["batch", "default", "interactive", "default"]
    bad = write(tmp_path / "bad.csv", content.replace("interactive", "a/b"))
    assert refused(bad) == "row 3: sla_class=a/b: must be letters, digits, - and _"


def test_other_traces_have_no_sla_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.jsonl", MOONCAKE.replace('"hash_ids"', '"sla_class": "batch", "hash_ids"'))
    assert [request.sla_class for request in TraceWorkload(path=path).draw(0).requests] == ["default", "default"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    columns = {"arrival_s": [0.0, 2.5], "prompt_tokens": [3, 4], "output_tokens": [5, 6]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert shape(TraceWorkload(path=str(path)).draw(0).requests) == [(0.0, 3, 5, "LPLD"), (2.5, 4, 6, "LPLD")]


def test_parquet_with_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    times = pyarrow.array([datetime(2023, 11, 16), datetime(2023, 11, 16, 0, 1)], pyarrow.timestamp("us"))
    columns = {"TIMESTAMP": times, "ContextTokens": [3, 4], "GeneratedTokens": [5, 6]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert [request.arrival_s for request in TraceWorkload(path=str(path)).draw(0).requests] == [0.0, 60.0]


def test_a_slice_counts_from_its_own_first_row(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.csv", GENERIC)
    drawn = TraceWorkload(path=path, start_s=0.5, num_requests=2).draw(0)
    assert shape(drawn.requests) == [(0.0, 600, 20, "HPLD"), (2.0, 10, 200, "LPHD")]


def test_rows_after_the_last_one_taken_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.csv", GENERIC + "bad,bad,bad\n")
    assert len(TraceWorkload(path=path, num_requests=4).draw(0).requests) == 4
    assert refused(path, num_requests=5).startswith("row 5: ")


def test_scales(tmp_path: Path) -> None:
    drawn = TraceWorkload(path=write(tmp_path / "trace.csv", GENERIC), rate_scale=2.0, length_scale=0.1).draw(0)
    assert shape(drawn.requests[2:]) == [(1.25, 1, 20, "LPHD"), (3.75, 60, 20, "HPHD")]


def test_rows_that_exceed_the_context_are_cut_and_counted(tmp_path: Path) -> None:
    generated = generate(TraceWorkload(path=write(tmp_path / "trace.csv", GENERIC)), 0, 512)
    assert generated.num_cut == 2
    assert [request.num_prompt_tokens for request in generated.requests] == [10, 511, 10, 511]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "there are no rows in it"),
        ("-1,2,3\n", "row 1: arrival_s=-1 must be at least 0 and finite"),
        ("nan,2,3\n", "row 1: arrival_s=nan must be at least 0 and finite"),
        ("soon,2,3\n", "row 1: arrival_s='soon' is not a time"),
        ("5,2,3\n4,2,3\n", "row 2: arrival_s=4 is earlier than the row before; sort the trace"),
        ("5,0,3\n", "row 1: prompt_tokens=0 must be a whole number of tokens, at least 1"),
        ("5,2,3\n5,2,0\n", "row 2: output_tokens=0 must be a whole number of tokens, at least 1"),
        ("5,2,-3\n", "row 1: output_tokens=-3 must be a whole number of tokens, at least 1"),
        ("5,2.5,3\n", "row 1: prompt_tokens=2.5 must be a whole number of tokens, at least 1"),
        ("5,2,inf\n", "row 1: output_tokens=inf must be a whole number of tokens, at least 1"),
        ("5,2,many\n", "row 1: output_tokens='many' is not a number of tokens"),
        ("5,2\n", "row 1: output_tokens=None is not a number of tokens"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    assert refused(write(tmp_path / "trace.csv", "arrival_s,prompt_tokens,output_tokens\n" + rows)) == message


def test_a_row_without_a_column_is_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"timestamp": 1, "input_length": 2, "output_length": 3}, {"timestamp": 2}]
    path = write(tmp_path / "trace.jsonl", "\n".join(map(json.dumps, rows)))
    assert refused(path) == "row 2: input_length=None is not a number of tokens"


def test_bad_wall_clocks_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.csv", AZURE.replace("2023-11-16 18:15:50", "yesterday"))
    assert refused(path) == "row 2: TIMESTAMP='yesterday.9951690' is not a time"


def test_missing_columns_name_the_legal_ones(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "trace.csv", "when,prompt_tokens,output_tokens\n1,2,3\n"))
    assert message.startswith("has columns when, prompt_tokens, output_tokens; needed are ")
    assert "timestamp, input_length, output_length (Mooncake)" in message
    assert "arrival_s, prompt_tokens, output_tokens (generic)" in message


def _truncated_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(GENERIC.encode())[:-12])


def _plain_text_named_gz(path: Path) -> None:
    path.write_text(GENERIC)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("trace.csv.gz", _truncated_gzip),
        ("trace.csv.gz", _plain_text_named_gz),
        ("trace.parquet", _plain_text_named_gz),
        ("trace.csv", lambda path: path.write_bytes(b"\xff\xfe")),
        ("trace.jsonl", lambda path: path.write_text('{"timestamp": 1, \n')),
        ("trace.jsonl", lambda path: path.write_text("[1, 2]\n")),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(tmp_path / name)
    assert refused(str(tmp_path / name)).startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_requests": 0}, "workload.num_requests=0: must be at least 1"),
        ({"rate_scale": 0.0}, "workload.rate_scale=0.0: must be above 0 and finite"),
        ({"length_scale": -1.0}, "workload.length_scale=-1.0: must be above 0 and finite"),
        ({"start_s": -1.0}, "workload.start_s=-1.0: must be at least 0 and finite"),
        ({"start_s": 7.6}, "no requests at or after workload.start_s=7.6"),
    ],
)
def test_illegal_options_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    assert refused(write(tmp_path / "trace.csv", GENERIC), **options) == message


def test_missing_files_and_other_kinds_are_refused_at_construction(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^workload\.path=.*gone\.csv: there is no such file$"):
        TraceWorkload(path=str(tmp_path / "gone.csv"))
    with pytest.raises(ValueError, match=r"must end in one of \.csv, \.csv\.gz, \.jsonl, \.jsonl\.gz, \.parquet$"):
        TraceWorkload(path=write(tmp_path / "trace.txt", GENERIC))


@pytest.mark.parametrize(
    ("name", "num_requests", "duration_s"),
    [
        ("azure-llm-2023/AzureLLMInferenceTrace_conv.csv.gz", 19366, 3501.721937),
        ("azure-llm-2023/AzureLLMInferenceTrace_code.csv.gz", 8819, 3435.948056),
        ("mooncake/conversation_trace.jsonl.gz", 12031, 3536.999),
        ("mooncake/synthetic_trace.jsonl.gz", 3993, None),
        ("vtc/real_trace.csv.gz", 1500, 600.0),
    ],
)
def test_published_traces(data: Path, name: str, num_requests: int, duration_s: float | None) -> None:
    requests = TraceWorkload(path=str(data / name)).draw(0).requests
    assert len(requests) == num_requests
    assert all(earlier.arrival_s <= later.arrival_s for earlier, later in pairwise(requests))
    assert duration_s is None or math.isclose(requests[-1].arrival_s, duration_s)
