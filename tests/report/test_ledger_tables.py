"""The ledger in a report: numbers that lead to metrics.json, one account one look, a page that says what is missing."""

from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tetribench.metrics.energy import Reading
from tetribench.metrics.ledger import ACCOUNTS
from tetribench.report import wording
from tetribench.report.figure_ledger import LOOKS, ledger_bars
from tetribench.report.frames import ledger_frame
from tetribench.report.ledger_tables import ALL, class_cost_table, ledger_table
from tetribench.report.runs import Run, load_run
from tetribench.report.serving_tables import resource_table
from tetribench.report.style import drawing


@pytest.fixture(scope="module")
def run(reported: Path) -> Run:
    return load_run(reported)


def summaries(run: Run) -> dict[str, Any]:
    return {"pooled": run.pooled}


def test_every_cell_leads_to_its_value(run: Run) -> None:
    found = [ledger_table(run.pooled), class_cost_table(run.pooled)]
    cells = [cell for table in found for row in table.rows for cell in row.cells if cell.path]
    assert len(cells) > 20
    for cell in cells:
        known: Any = summaries(run)
        assert reduce(getitem, cell.path, known) == cell.value


def test_a_system_of_several_instances_has_a_sum(run: Run) -> None:
    table = ledger_table(run.pooled)
    heads = [("vllm_like", "colocated_0"), ("tetri", ALL), ("tetri", "prefill_0"), ("tetri", "decode_0")]
    assert [row.heads for row in table.rows] == heads
    values = {row.heads: [cell.value or 0.0 for cell in row.cells] for row in table.rows}
    for place, value in enumerate(values["tetri", ALL]):
        assert value == pytest.approx(values["tetri", "prefill_0"][place] + values["tetri", "decode_0"][place])
    for whole_s, *parts_s in values.values():
        assert whole_s == pytest.approx(sum(parts_s))


def test_accounts_that_nobody_has_are_left_out(run: Run) -> None:
    columns = ledger_table(run.pooled).columns
    assert {"Prefill", "Decode", "KV transfer"} <= set(columns) and not {"Flip", "Lost", "Predictor"} & set(columns)


def test_every_account_looks_like_no_other() -> None:
    assert list(LOOKS) == [account.name for account in ACCOUNTS]
    assert len({(look.colour, look.hatch) for look in LOOKS.values()}) == len(ACCOUNTS)


def test_the_figure_has_a_bar_for_each_instance_as_long_as_it_lived(run: Run) -> None:
    with drawing():
        figure = ledger_bars(run.pooled, "")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["colocated_0", "prefill_0", "decode_0"]
    ends: dict[float, float] = {}
    for bar in axes.patches:
        middle, right = round(bar.get_y() + bar.get_height() / 2, 6), bar.get_x() + bar.get_width()  # type: ignore[attr-defined]
        ends[middle] = max(ends.get(middle, 0.0), right)
    lives_s = [result.ledger["provisioned_s"][name] for result in run.results for name in result.ledger.index]
    assert sorted(ends.values()) == pytest.approx(sorted(lives_s))


def test_the_frame_has_a_row_for_each_instance(run: Run) -> None:
    frame = ledger_frame(run.pooled)
    assert list(frame["system"]) == ["vllm_like", "tetri", "tetri"] and list(frame.columns[:2]) == [
        "system",
        "instance",
    ]


def test_a_report_says_what_of_cost_is_not_known(run: Run) -> None:
    assert wording.costs(run) == (
        "Money: no price was set (cost.price_per_device_hour). Energy: not measured: in virtual time nothing is drawn."
    )
    titles = [row.heads[0] for row in resource_table(run.pooled).rows]
    assert "Device-seconds per request" in titles and not any("Cost" in title or "Energy" in title for title in titles)
    assert "per request (USD)" not in class_cost_table(run.pooled).columns


def test_a_price_and_a_meter_are_in_the_report(make_run: Callable[..., Path]) -> None:
    path = make_run(runtime="process", cost={"price_per_device_hour": 2.5})
    real = load_run(path)
    assert wording.costs(real) == (
        "Money: 2.5 USD per device and hour. "
        "Energy: not measured: that takes NVIDIA GPUs that count it, and tetribench[power]."
    )
    assert class_cost_table(real.pooled).columns[-1] == "per request (USD)"
    for log in path.glob("repeats/*/*/events.jsonl"):
        log.write_bytes(log.read_bytes().replace(b'"device":"cost model"', b'"device":"cuda:0","device_uuid":"GPU-a"'))
        readings = [Reading(time_s, {"GPU-a": 300.0 * time_s}) for time_s in (-1.0, 1e4)]
        log.with_name("energy.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in readings))
    measured = load_run(path)
    assert wording.costs(measured).endswith("Energy: what the energy counters of the GPUs say.")
    for result in measured.results:
        assert result.summary["resources"]["mean_power_w"] == pytest.approx(300.0)
    titles = [row.heads[0] for row in resource_table(measured.pooled).rows]
    assert "Mean power, while serving (W)" in titles and "Cost from start to stop (USD)" in titles
