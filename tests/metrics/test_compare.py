import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tetribench.core.events import Event
from tetribench.metrics.compare import HEADLINES, SystemResult, measure
from tetribench.metrics.document import SCHEMA_VERSION, metrics_document
from tetribench.metrics.latency import ITL, METRICS
from tetribench.metrics.paired import Served, compare, serving_values
from tetribench.metrics.pooled import pool
from tetribench.metrics.price import Price
from tetribench.metrics.rule import DECIDABLE, Rule
from tetribench.metrics.slo import Slo

Make = Callable[..., Event]


def comparison(results: list[SystemResult], baseline: str) -> pd.DataFrame:
    """Of one repeat, as a table: values by system, and ratios called `system/baseline`."""
    rows = {}
    for row in compare([Served(0, place, result) for place, result in enumerate(results)], baseline, Rule(), seed=0):
        ratios = {f"{system}/{baseline}": ratio.value for system, ratio in row.ratios.items()}
        rows[row.headline.name] = {**row.values, **ratios}
    return pd.DataFrame.from_dict(rows, orient="index")


def document_of(results: list[SystemResult], baseline: str) -> dict[str, Any]:
    served = [Served(0, place, result) for place, result in enumerate(results)]
    rows = compare(served, baseline, Rule(), seed=0)
    values, pooled = serving_values(served, baseline), {one.result.system: pool([one], Price()) for one in served}
    return metrics_document(results, rows, values, pooled=pooled, baseline=baseline, rule=Rule(), num_repeats=1)


def test_the_document_has_the_values_of_every_serving(disaggregated: list[Event], colocated: list[Event]) -> None:
    results = [measure("tetri", disaggregated, Slo()), measure("vllm_like", colocated, Slo())]
    document = document_of(results, "vllm_like")
    assert [(one["repeat"], one["slot"], one["system"]) for one in document["servings"]] == [
        (0, 0, "tetri"),
        (0, 1, "vllm_like"),
    ]
    for row in document["comparison"]:
        for one in document["servings"]:
            assert one["values"][row["metric"]] == row["values"][one["system"]]


def test_every_headline_that_has_a_ratio_can_be_decided_on() -> None:
    assert tuple(headline.name for headline in HEADLINES if headline.has_ratio) == DECIDABLE


def test_a_result_holds_tables_and_summary(disaggregated: list[Event]) -> None:
    result = measure("tetri", disaggregated, Slo(ttft_s=0.5))
    assert result.system == "tetri"
    assert result.requests.loc[1, "ttft_s"] == pytest.approx(0.45)
    assert result.token_times[1].tolist() == [1.45, 1.70, 1.80, 2.00]
    assert result.itl_s.to_list() == pytest.approx([0.25, 0.10, 0.20])
    assert (len(result.instances), len(result.iterations), len(result.transfers)) == (2, 4, 2)
    assert result.summary["accounting"] == {"submitted": 2, "finished": 2, "failed": 0, "unfinished": 0}
    assert result.summary["resources"]["slo_attained_share"] == 0.5


def test_the_summary_is_by_class_where_there_are_several(disaggregated: list[Event], colocated: list[Event]) -> None:
    metrics = measure("tetri", disaggregated, Slo()).summary["metrics"]
    assert list(metrics) == ["overall", "HPLD", "LPLD"]
    assert list(metrics["LPLD"]) == [metric.column for metric in (*METRICS, ITL)]
    assert metrics["LPLD"]["ttft_s"]["mean"] == pytest.approx(0.45)
    assert metrics["HPLD"]["ttft_s"]["mean"] == pytest.approx(2.0)
    assert metrics["overall"]["ttft_s"]["mean"] == pytest.approx((0.45 + 2.0) / 2)
    assert metrics["overall"]["itl_s"]["count"] == metrics["LPLD"]["itl_s"]["count"] == 3
    assert metrics["HPLD"]["itl_s"]["count"] == 0
    assert list(measure("vllm_like", colocated, Slo()).summary["metrics"]) == ["overall"]


def test_a_comparison_by_hand(disaggregated: list[Event], colocated: list[Event]) -> None:
    results = [measure("vllm_like", colocated, Slo()), measure("tetri", disaggregated, Slo())]
    table = comparison(results, "vllm_like")
    assert set(table.columns) == {"vllm_like", "tetri", "tetri/vllm_like"}
    assert list(table.index) == [headline.name for headline in HEADLINES]
    by_hand = {
        "mean_ttft_s": (1.0, 1.225),
        "mean_tpot_s": (1.0, 0.55 / 3),
        "mean_jct_s": (4.0, 1.5),
        "makespan_s": (4.0, 2.0),
        "output_throughput_tokens_per_s": (0.75, 2.5),
        "resource_time_s": (3.0, 2.5),
        "device_seconds": (4.0, 4.0),
        "perf_per_dollar_paper": (1.0, (1 + 2.5 / 4.0) / (2.5 / 3.0)),
        "perf_per_dollar_usual": (1.0, (4.0 / 1.5) / (2.5 / 3.0)),
        "num_finished": (1, 2),
        "num_failed": (1, 0),
    }
    rows = table[["vllm_like", "tetri", "tetri/vllm_like"]].T.to_dict("list")
    for name, (baseline, system) in by_hand.items():
        ratio = [system / baseline] if name in DECIDABLE else [float("nan")]
        assert rows[name] == pytest.approx([baseline, system, *ratio], nan_ok=True), name
    assert table.loc[["p95_ttft_s", "p95_jct_s"]].isna().all(axis=None), "two requests have no p95"


def test_every_system_is_compared_with_the_baseline(disaggregated: list[Event], colocated: list[Event]) -> None:
    result = measure("a", disaggregated, Slo())
    results = [result, replace(result, system="b"), measure("c", colocated, Slo())]
    table = comparison(results, "b")
    assert list(table.columns) == ["a", "b", "c", "a/b", "c/b"]
    assert (table["a/b"].dropna() == 1.0).all()
    assert table["c/b"].isna()["num_failed"], "counts have no ratio"


def test_the_baseline_must_be_there(colocated: list[Event]) -> None:
    result = measure("vllm_like", colocated, Slo())
    with pytest.raises(ValueError, match="baseline=tetri: must be one of the systems measured: vllm_like"):
        comparison([result], "tetri")


def test_the_document_is_plain(disaggregated: list[Event], colocated: list[Event]) -> None:
    results = [measure("vllm_like", colocated, Slo()), measure("tetri", disaggregated, Slo())]
    document = document_of(results, "vllm_like")
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema_version"] == SCHEMA_VERSION == 2
    assert document["baseline"] == "vllm_like"
    assert document["systems"]["tetri"] == results[1].summary
    rows = {row["metric"]: row for row in document["comparison"]}
    assert list(rows) == [headline.name for headline in HEADLINES]
    assert rows["mean_jct_s"] == {
        "metric": "mean_jct_s",
        "title": "Mean JCT",
        "unit": "s",
        "better": "lower",
        "values": {"vllm_like": 4.0, "tetri": pytest.approx(1.5)},
        "ratios": {"tetri": pytest.approx(0.375)},
        "tests": {
            "tetri": dict.fromkeys(("low", "high", "p", "band", "smallest")) | {"outcome": "", "is_inside_band": False},
        },
    }
    assert rows["p95_jct_s"]["values"] == {"vllm_like": None, "tetri": None}


def test_systems_that_finished_nothing(arrival: Make, event: Make, disaggregated: list[Event]) -> None:
    cut = measure("cut", [arrival(0.0, 1), event(0.0, "sent", "client", 1)], Slo(ttft_s=1.0))
    empty = measure("empty", [], Slo(tpot_s=1.0))
    assert cut.accounting.unfinished == 1 and empty.accounting.submitted == 0
    results = [cut, empty, measure("tetri", disaggregated, Slo())]
    for baseline in ("cut", "empty", "tetri"):
        document = document_of(results, baseline)
        json.dumps(document, allow_nan=False)
        rows = {row["metric"]: row["values"] for row in document["comparison"]}
        assert rows["mean_jct_s"]["cut"] is None and rows["num_finished"]["cut"] == 0
        assert rows["perf_per_dollar_paper"]["cut"] is None
