"""Bad input: one line on stderr that names the option and what is legal, exit code 2, nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tetribench import cli

Command = Callable[..., int]

BAD = {
    "no workload": ([], "+workload=heavy_prefill"),
    "workload without plus": (["workload=lpld"], "+workload=NAME"),
    "unknown workload": (["+workload=foo"], "heavy_prefill"),
    "misspelt key": (["+workload=lpld", "workload.num_request=3"], "did you mean workload.num_requests?"),
    "misspelt root key": (["+workload=lpld", "sede=3"], "did you mean seed?"),
    "key added by force": (["+workload=lpld", "+sede=3"], "+sede"),
    "key of another option": (
        ["+workload=lpld", "prefill/predict=oracle", "prefill.predict.accuracy=1"],
        "granularity",
    ),
    "unknown option": (["+workload=lpld", "prefill/order=lifo"], "fcfs, ljf, sjf"),
    "unknown group": (["+workload=lpld", "prefil/order=sjf"], "no such group"),
    "wrong type": (["+workload=lpld", "workload.num_requests=many"], "Integer"),
    "wrong enum": (["+workload=lpld", "kv.granularity=token"], "request, chunk, layer"),
    "unfinished list": (["+workload=lpld", "systems=[tetri"], "quote"),
    "zero requests": (["+workload=lpld", "workload.num_requests=0"], "workload.num_requests=0: must be at least 1"),
    "chunk size of zero": (["+workload=lpld", "prefill.chunk.chunk_size=0"], "prefill.chunk.chunk_size=0"),
    "window of zero": (["+workload=lpld", "prefill.order.window=0"], "prefill.order.window=0"),
    "no system": (["+workload=lpld", "systems=[]"], "tetri"),
    "unknown system": (["+workload=lpld", "systems=[sglang]"], "vllm_like"),
    "stall timeout": (["+workload=lpld", "stall_timeout_s=0"], "stall_timeout_s"),
    "real engine in virtual time": (["+workload=lpld", "runtime=sim", "engine=hf"], "engine=cost_model"),
    "device that is not there": (["+workload=lpld", "device=cuda"], "device=cuda"),
    "more KV than memory": (["+workload=lpld", "engine.kv_memory_gib=100000"], "engine.kv_memory_gib"),
    "KV for less than a request": (["+workload=lpld", "engine.kv_memory_gib=0.001"], "longest request"),
    "simulated KV beyond the device": (["+workload=lpld", "runtime=sim", "engine.kv_memory_gib=99"], "cpu_core"),
    "model beyond the device": (
        ["+workload=lpld", "runtime=sim", "model=opt_13b"],
        "hardware=cpu_core: of its 3.7 GiB",
    ),
    "profile without a constant": (
        ["+workload=lpld", "runtime=sim", "hardware.flops_per_s=???"],
        "hardware.flops_per_s",
    ),
    "device shared by threads": (
        ["+workload=lpld", "runtime=inline", "system.tetri.sharing=time_slicing"],
        "system.tetri.sharing=time_slicing: two instances share a device where both compute",
    ),
    "device shared by engines that sleep": (
        ["+workload=lpld", "engine=cost_model", "system.tetri.sharing=time_slicing"],
        "runtime=process with engine=hf",
    ),
    "MPS on a CPU": (
        ["+workload=lpld", "device=cpu", "system.tetri.sharing=mps"],
        "system.tetri.sharing=mps: MPS is of NVIDIA's GPUs; must be none or time_slicing",
    ),
    "MPS in virtual time": (
        ["+workload=lpld", "runtime=sim", "system.tetri.sharing=mps"],
        "system.tetri.sharing=mps: a cost model takes turns; must be none or time_slicing",
    ),
    "green contexts on a CPU": (
        ["+workload=lpld", "device=cpu", "system.tetri.sharing=green_contexts"],
        "system.tetri.sharing=green_contexts: they are of NVIDIA's GPUs; must be none or time_slicing",
    ),
    "green contexts in virtual time": (
        ["+workload=lpld", "runtime=sim", "system.tetri.sharing=green_contexts"],
        "system.tetri.sharing=green_contexts: a cost model takes turns; must be none or time_slicing",
    ),
    "share of an undivided device": (
        ["+workload=lpld", "system.tetri.prefill_share=0.7"],
        "system.tetri.prefill_share=0.7: nothing is divided with sharing=none; must be null, or sharing=green_contexts",
    ),
    "half of the KV for less than a request": (
        [*("+workload=lphd", "runtime=sim"), *("engine.kv_memory_gib=0.017", "system.tetri.sharing=time_slicing")],
        "longest request",
    ),
    "profile of two devices": (
        ["+workload=lpld", "runtime=sim", "hardware=v100_tp2", "hardware.num_devices=4"],
        "hardware.num_devices=4: must be 2, as measured (v100_tp2)",
    ),
    "profile that is not there": (["+workload=lpld", "runtime=sim", "hardware=local"], "tetribench task=calibrate"),
    "calibrating a cost model": (["task=calibrate", "runtime=sim"], "task=calibrate measures a real engine"),
    "calibrating nothing": (["task=calibrate", "task.seconds=0"], "task.seconds=0.0: must be positive"),
    "benching a cost model": (["task=gpu_bench", "runtime=sim"], "task=gpu_bench measures a real engine"),
    "marks of a cost model": (["task=marks", "runtime=sim"], "task=marks measures a real engine"),
    "marks in no time": (["task=marks", "task.seconds=0"], "task.seconds=0.0: must be positive"),
    "benching into another folder": (
        ["task=gpu_bench", "task.name=a/b"],
        "task.name=a/b: must be the name of a folder",
    ),
    "fit of no profile": (["task=fit", "task.profile=tpu"], "task.profile=tpu: must be one of v100_tp2, a100_80g"),
    "fit without measurements": (["task=fit", "task.profile=h100", "task.data=/no/such"], "task.data=/no/such: has no"),
    "no path": (["+workload=trace", "runtime=sim"], "workload.path"),
    "missing trace": (["+workload=trace", "workload.path=/no/such.csv", "runtime=sim"], "workload.path=/no/such.csv"),
    "text without tokenizer": (["+workload=text", "workload.path=pyproject.txt"], "workload.path=pyproject.txt"),
    "verb that a link has not got": (["+workload=lpld", "kv/link=tcp", "kv.link.operation=read"], "tcp has send only"),
    "link to another machine's address": (["+workload=lpld", "kv/link=tcp", "kv.link.host=192.0.2.1"], "kv.link.host"),
    "price that is none": (
        ["+workload=lpld", "cost.price_per_device_hour=0"],
        "cost.price_per_device_hour=0.0: must be above 0 and finite, or null",
    ),
    "bound that is no time": (["+workload=lpld", "slo.ttft_s=-1"], "slo.ttft_s=-1.0: must be above 0 or null"),
    "bound of a class that is no time": (
        ["+workload=lpld", "+slo.classes.default.tpot_s=0"],
        "slo.classes.default.tpot_s=0.0: must be above 0 or null",
    ),
    "unknown bound of a class": (
        ["+workload=lpld", "+slo.classes.default.itl_s=1"],
        "slo.classes.default.itl_s: no such option; it has ttft_s, tpot_s",
    ),
    "bounds of a class that nobody has": (
        ["+workload=lpld", "runtime=sim", "+slo.classes.batch.ttft_s=1"],
        "slo.classes.batch: no request has this SLA class; the workload has default",
    ),
    "bounds of a class without plus": (
        ["+workload=lpld", "slo.classes.default.ttft_s=1"],
        "type +slo.classes.default.ttft_s=VALUE",
    ),
    "SLA class of two words": (["+workload=lpld", "workload.sla_class='a b'"], "workload.sla_class=a b"),
    "report of nothing": (["task=report"], "task.runs"),
}

TRACES = {
    "missing column": ("arrival_s,prompt_tokens\n0,1\n", "output_tokens"),
    "negative time": ("arrival_s,prompt_tokens,output_tokens\n-1,1,1\n", "arrival_s"),
    "times that go back": ("arrival_s,prompt_tokens,output_tokens\n2,1,1\n1,1,1\n", "row 2"),
    "empty": ("", "there are no rows in it"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], expected: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tetribench(*arguments) == 2
    output = capfd.readouterr()
    assert output.err.startswith("tetribench: ")
    assert output.err.count("\n") == 1
    assert expected in output.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("content", "expected"), TRACES.values(), ids=TRACES.keys())
def test_bad_traces_are_refused(
    content: str, expected: str, tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    assert tetribench("+workload=trace", f"workload.path={path}", "runtime=sim") == 2
    output = capfd.readouterr().err
    assert expected in output
    assert output.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_taken_is_refused(
    tetribench: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    assert tetribench("+workload=lpld", "runtime=sim", "name=mine") == 2
    assert "name=mine" in capfd.readouterr().err


def test_help_lists_every_group(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tetribench", "--help"])
    cli.main()
    text = capsys.readouterr().out
    assert "+workload=heavy_prefill" in text
    assert "prefill/order: fcfs, ljf, sjf" in text
    assert "schema" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
