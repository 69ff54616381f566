"""Every figure: pure, drawn from its table alone, with sentences that say its numbers."""

from collections.abc import Callable

import pandas as pd
import pytest

from tetribench.paper.end_to_end import EndToEnd
from tetribench.paper.fig01 import Lengths
from tetribench.paper.fig16 import PrefillPolicies
from tetribench.paper.fig17 import PredictorModes
from tetribench.paper.fig18 import Admission
from tetribench.paper.fig19 import Dispatching
from tetribench.paper.table1 import Workloads
from tetribench.report.finding import Finding, SystemFigure, finding_of

Rows = Callable[..., pd.DataFrame]

FIGURES: dict[str, tuple[SystemFigure, dict[str, list[str]], int]] = {
    "end_to_end": (
        EndToEnd(figure=15, workload="mixed", baseline="vllm_like_cap16"),
        {"system": ["vllm_like_cap16", "ts_roce", "ts_nvlink"]},
        2,
    ),
    "fig16": (PrefillPolicies(), {"policy": ["vllm_like_cap16", "fcfs", "sjf"], "window": ["16", "128"]}, 5),
    "fig17": (PredictorModes(), {"mode": ["off", "sequential", "parallel"]}, 2),
    "fig18": (Admission(), {"predictor": ["real", "perfect"], "admit": ["greedy", "reserve_static"]}, 3),
    "fig19": (Dispatching(), {"instances": ["2", "4"], "dispatch": ["imbalance", "random", "power_of_two"]}, 2),
}


def found(name: str, rows_of: Rows) -> Finding:
    figure, axes, _ = FIGURES[name]
    return finding_of(figure, name, rows_of(axes, list(figure.quantities)))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_systems_is_drawn_and_read(name: str, rows_of: Rows) -> None:
    finding = found(name, rows_of)
    assert len(finding.readings) == FIGURES[name][2]
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in finding.readings)
    assert finding.drawing.axes and finding.drawing.texts[0].get_text() == finding.title
    assert not finding.table["mean"].isna().any()


@pytest.mark.parametrize("name", FIGURES)
def test_the_order_of_the_seeds_changes_nothing(name: str, rows_of: Rows) -> None:
    figure, axes, _ = FIGURES[name]
    rows = rows_of(axes, list(figure.quantities))
    ordered = rows.sort_values("seed", kind="stable").sort_values(list(axes), kind="stable", key=_by_place(rows))
    pd.testing.assert_frame_equal(figure.table(rows), figure.table(ordered))


def _by_place(rows: pd.DataFrame) -> Callable[["pd.Series[str]"], "pd.Series[int]"]:
    return lambda column: column.map({label: place for place, label in enumerate(rows[column.name].unique())})


def test_end_to_end_has_percentiles_after_the_means(rows_of: Rows) -> None:
    table = found("end_to_end", rows_of).table
    assert table["metric"].iloc[:3].tolist() == ["ttft_s", "jct_s", "resource_time_s"]
    assert {"ttft_p00_s", "jct_p50_s", "jct_p100_s"} <= set(table["metric"].iloc[15:])
    assert len(table) == 3 * (3 + 2 + 2 * 21)


def test_lengths_stand_beside_the_papers_quantiles() -> None:
    rows = pd.DataFrame(
        [
            ("conversation", "prompt", 0.5, 203),
            ("conversation", "prompt", 0.6, 300),
            ("writing", "generation", 1.0, 92),
        ],
        columns=["task", "part", "share", "drawn_tokens"],
    )
    finding = finding_of(Lengths(), "fig01", rows)
    assert finding.table["paper_tokens"].tolist()[::2] == [203.0, 9200.0]
    assert pd.isna(finding.table["paper_tokens"][1])
    assert finding.readings == [
        "The quantiles drawn are within 99.0% of the paper's, 49.5% in the median; the largest difference is the "
        "100.0% quantile of writing, generation."
    ]


def test_workloads_say_which_prompts_are_longer_than_the_papers() -> None:
    own = {"num_requests": 4, "output_tokens": 9.0, "heavy_prompts": 0.0, "heavy_outputs": 0.0, "num_cut": 0}
    rows = pd.DataFrame(
        [
            {"workload": workload, "seed": seed, "prompt_tokens": tokens + seed, **own, "kv_tokens": 44_096}
            for workload, tokens in {"LPLD": 100.0, "LPHD": 300.0}.items()
            for seed in (0, 1)
        ]
    )
    finding = finding_of(Workloads(), "table1", rows)
    assert "LPHD 300 for 78" in finding.readings[0] or "LPHD 301 for 78" in finding.readings[0]
    assert "LPLD" not in finding.readings[0]
    assert "44,096 tokens" in finding.readings[1]
