"""The floors of the engine's work, and the marks rehearsed on the CPU."""

import csv
import json
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from tetribench.calibrate.marks import DEVICE_IS_HOST, HOST_SHARE, Mark, handover, host_share, layer_parameters, works
from tetribench.calibrate.marks_task import Marks
from tetribench.calibrate.steps import Step
from tetribench.engine.hf.attention.options import Attention
from tetribench.engine.hf.schema import Device, HFEngine
from tetribench.engine.model import Architecture, Model
from tetribench.experiment import Composed

OPT_13B = Model(
    name="opt_13b", num_layers=40, hidden_size=5120, ffn_size=20480, num_heads=40, num_kv_heads=40, vocab_size=50272
)


def test_floors_of_opt_13b_are_the_bytes_and_products_that_it_must_do() -> None:
    assert layer_parameters(OPT_13B) == 40 * 12 * 5120**2
    decode, _, chunk, _ = works(OPT_13B, 2)
    assert decode.num_bytes == pytest.approx(2 * (40 * 12 * 5120**2 + 50272 * 5120) + 16 * 512 * 819_200)
    mark = decode.mark(0.010, 4e12, 8e14)
    assert mark.floor_s == pytest.approx(decode.num_bytes / 4e12)
    own = 2 * 40 * 12 * 5120**2 * 512
    assert chunk.num_flops == pytest.approx(own + 4 * 40 * 5120 * 512 * 513 / 2)
    assert chunk.mark(0.02, 4e12, 8e14).floor_s == pytest.approx(chunk.num_flops / 8e14)


def test_a_model_with_two_embeddings_has_no_floor_above_what_it_must_do() -> None:
    llama = Model(name="l", architecture=Architecture.llama, num_layers=2, hidden_size=64, ffn_size=128, vocab_size=512)
    assert layer_parameters(llama) == 2 * (4 * 64**2 + 3 * 64 * 128)


def test_a_handover_reads_and_writes_each_byte() -> None:
    mark = handover(OPT_13B, 2, 16, copy_bytes_per_s=1e12, memory_bytes_per_s=3e12)
    assert mark.seconds == pytest.approx(512 * 819_200 / 1e12)
    assert mark.ratio == pytest.approx(1.5)


def test_a_row_without_a_measurement_claims_nothing() -> None:
    mark = Mark(what="w", remark="why")
    assert mark.ratio is None and mark.is_met is None
    assert Mark(what="w", seconds=1.2, floor_s=1.0, at_most=1.25).is_met is True
    assert Mark(what="w", seconds=1.3, floor_s=1.0, at_most=1.25).is_met is False


def test_what_does_not_fit_is_said() -> None:
    _, large, _, long = works(OPT_13B, 2)
    assert large.why_not(num_blocks=4096, block_size=16, max_context_tokens=2048) is None
    assert "needs 4096 blocks of 4095" in str(large.why_not(4095, 16, 2048))
    assert long.why_not(4096, 16, 2047) == "the model takes 2047 tokens"


def test_what_is_not_the_devices_is_the_hosts() -> None:
    mark = host_share(Step((), (512,) * 16), seconds=0.010, device_s=0.0098)
    assert mark.what == f"{HOST_SHARE}, batch 16"
    assert mark.ratio == pytest.approx(0.02) and mark.is_met is True
    assert host_share(Step((), (9,)), seconds=0.010, device_s=0.009).is_met is False
    assert host_share(Step((), (9,)), seconds=0.010, device_s=0.011).ratio == 0.0


@pytest.mark.alone
def test_the_marks_are_rehearsed_on_the_cpu(tmp_path: Path) -> None:
    model = Model(
        name="tiny", num_layers=1, hidden_size=32, ffn_size=64, num_heads=2, num_kv_heads=2, vocab_size=64,
        max_context_tokens=600,
    )  # fmt: skip
    engine = HFEngine(model=model, device=Device.cpu, attention=Attention.sdpa, kv_memory_gib=0.02)
    console = Console(width=200, record=True)
    Marks(engine=engine, out=str(tmp_path / "mine"), seconds=0.1).execute(cast(Composed, None), console)
    said = console.export_text()
    assert "sdpa paged on cpu, tiny" in said and "the model takes 600 tokens" in said
    written = json.loads((tmp_path / "mine" / "marks.json").read_text())
    assert written["floors"]["memory_bytes_per_s"] > 1e6 and written["floors"]["flops_per_s"] > 1e6
    with (tmp_path / "mine" / "marks.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["seconds"]]
    assert len(measured) == 4 and all(float(row["ratio"]) > 0 for row in measured)
    assert (rows[-1]["what"], rows[-1]["remark"]) == (HOST_SHARE, DEVICE_IS_HOST)
