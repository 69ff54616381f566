"""From rows to tables and sentences, on numbers small enough to check by hand; every figure can be drawn."""

from collections.abc import Callable
from itertools import product
from math import exp, isnan, log, prod
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetribench.beyond.accuracy import Accuracy
from tetribench.beyond.attribution import TOTAL, Attribution
from tetribench.beyond.equal_hardware import EqualHardware
from tetribench.beyond.quantities import steady
from tetribench.beyond.rates import Rates
from tetribench.beyond.regret import RegretFigure
from tetribench.beyond.staleness import Staleness
from tetribench.beyond.winners import Winners
from tetribench.report.finding import Figure, finding_of

CAUSES = ["hardware", "split", "order", "flips"]


def attribution() -> Attribution:
    after = ["split after hardware", "order after split"]
    return Attribution(start="a", end="b", causes=CAUSES, after=after, idle=["flips"])


def steps(worth: Callable[[frozenset[str], int], float]) -> pd.DataFrame:
    """Rows of every system that occurs; both metrics are `worth` of what is on and the seed."""
    figure = attribution()
    rows: list[dict[str, Any]] = []
    for seed, labels in product((0, 1, 2), product(("without", "with"), repeat=3)):
        row = dict(zip(CAUSES[:3], labels, strict=True))
        if figure.admits(row):
            value = worth(frozenset(cause for cause, label in row.items() if label == "with"), seed)
            rows.append({"workload": "LPHD", **row, "seed": seed, "ttft_s": value, "jct_s": value})
    return pd.DataFrame(rows)


def test_only_systems_that_exist_are_asked_for() -> None:
    assert len(steps(lambda on, seed: 1.0)) == 3 * 4  # nothing; hardware; and split; and order
    with pytest.raises(ValueError, match="must be like"):
        Attribution(start="a", end="b", causes=CAUSES, after=["split needs hardware"], idle=[])


def test_factors_that_multiply_are_found_again() -> None:
    factors = {"hardware": 0.5, "split": 1.5, "order": 0.9}
    rows = steps(lambda on, seed: (10 + seed) * prod(factors[cause] for cause in on))
    table = attribution().table(rows)
    found = table[table["metric"] == "ttft_s"].set_index("cause")
    assert found["factor"].to_dict() == pytest.approx({**factors, "flips": 1.0, TOTAL: 0.675})
    assert list(found.loc["split", ["low", "high", "least", "most"]]) == pytest.approx([1.5] * 4)
    assert found.drop(TOTAL)["share"].sum() == pytest.approx(1.0)
    readings = attribution().reading(table)
    assert readings[0].startswith("LPHD: mean TTFT -32%")
    assert readings[-1].endswith("Cannot change anything in this set-up: flips.")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 10.0), min_size=12, max_size=12))
def test_the_factors_multiply_to_the_whole(values: list[float]) -> None:
    rows = steps(lambda on, seed: values[4 * seed + len(on)])
    found = attribution().table(rows)
    own = found[found["metric"] == "jct_s"].set_index("cause")["factor"]
    assert prod(own.drop(TOTAL)) == pytest.approx(own[TOTAL])
    assert own[TOTAL] == pytest.approx(exp(sum(log(values[4 * seed + 3] / values[4 * seed]) for seed in range(3)) / 3))


def test_steady_is_the_middle_half_of_the_arrivals() -> None:
    requests = pd.DataFrame({"arrived_s": [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 0.0, 7.0]})
    assert steady(requests)["arrived_s"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert len(steady(requests.head(2))) == 2


def equal() -> tuple[EqualHardware, pd.DataFrame]:
    values = {"tetri": 2.0, "half": 4.0, "two": 1.0}
    rows = [
        {"workload": "LPLD", "system": system, "seed": seed, "ttft_s": value, "jct_s": value, "device_seconds": 1.0}
        for system, value in values.items()
        for seed in (0, 1)
    ]
    return EqualHardware(system="tetri", half="half"), pd.DataFrame(rows)


def test_ratios_to_each_baseline() -> None:
    figure, rows = equal()
    table = figure.table(rows).set_index(["baseline", "metric"])
    assert table.loc[("half", "ttft_s"), "ratio"] == 0.5
    assert table.loc[("two", "jct_s"), "ratio"] == 2.0
    first, _, last = figure.reading(figure.table(rows))
    assert first.startswith("Mean TTFT of tetri on equal hardware: better than 0, worse than 1 of 1")
    assert "+100%" in first and "(two)" in first
    assert "better than 0, worse than 0" in last


def rates() -> tuple[Rates, pd.DataFrame]:
    share = {("base", 0.5): 1.0, ("base", 1.0): 0.2, ("tetri", 0.5): 0.95, ("tetri", 1.0): 0.9}
    latencies: dict[str, Any] = {
        f"{name}_{quantile}_s": 0.1 for name in ("ttft", "tpot") for quantile in ("p50", "p90")
    }
    rows = [
        {"system": system, "seed": seed, "attained": attained, **latencies, "load": load, "rate_per_s": 4 * load}
        | {"num_devices": 2, "slo_ttft_s": 0.5, "slo_tpot_s": 0.1}
        for (system, load), attained in share.items()
        for seed in (0, 1)
    ]
    return Rates(workload="mixed", hardware="x", baseline="base"), pd.DataFrame(rows)


def test_goodput_is_the_rate_times_the_share_of_a_device() -> None:
    figure, rows = rates()
    table = figure.table(rows)
    found = table[table["metric"] == "goodput"].set_index(["system", "load"])["mean"]
    assert found.to_dict() == pytest.approx(
        {("base", 0.5): 1.0, ("base", 1.0): 0.4, ("tetri", 0.5): 0.95, ("tetri", 1.0): 1.8}
    )
    served, best = figure.reading(table)
    assert served.endswith("tetri 2, base 1.")
    assert best.endswith("tetri 1.80, base 1.00.")


def winners() -> tuple[Winners, pd.DataFrame]:
    """Outputs of 16: 2P+2D is best of all; of 64: a tie; of 256: nobody is good with the split."""
    shares = {
        "16": {"tetri 1P+3D": 0.1, "tetri 2P+2D": 0.9, "vllm_like": 0.5, "sarathi_like": 0.6},
        "64": {"tetri 1P+3D": 1.0, "tetri 2P+2D": 1.0, "vllm_like": 1.0, "sarathi_like": 1.0},
        "256": {"tetri 1P+3D": 0.0, "tetri 2P+2D": 0.0, "vllm_like": 0.5, "sarathi_like": 0.4},
    }
    facts: dict[str, Any] = {"load": 0.5, "rate_per_s": 8.0, "num_devices": 8, "slo_ttft_s": 1, "slo_tpot_s": 1}
    rows = [
        {"profile": "v100", "prompt": "128", "output": output, "system": system, "seed": seed, "attained": share}
        | facts
        for output, own in shares.items()
        for system, share in own.items()
        for seed in (0, 1)
    ]
    return Winners(instances=4), pd.DataFrame(rows)


def test_the_best_split_meets_the_best_colocated_system() -> None:
    figure, rows = winners()
    table = figure.table(rows).set_index("output")
    assert table["winner"].to_dict() == {"16": "tetri", "64": "undecided", "256": "vllm_like"}
    assert list(table.loc["16", ["split", "colocated"]]) == ["tetri 2P+2D", "sarathi_like"]
    assert table["ratio"].to_dict() == pytest.approx({"16": 1.5, "64": 1.0, "256": 0.0})
    readings = figure.reading(figure.table(rows))
    assert readings[0] == "v100: of 3 cells the split wins 1, a colocated system 1, 1 are undecided."
    assert "by 50%" in readings[1]
    assert "1 at load 0.5" in readings[2]


def staleness() -> tuple[Staleness, pd.DataFrame]:
    figure = Staleness(workload="mixed", baseline="random", blind=["random"])
    values = {"random": 2.0, "power_of_two": 1.0}
    rows = [
        {"dispatcher": dispatcher, "period_ms": period, "seed": seed, "jct_s": value, "tpot_p90_s": value}
        for (dispatcher, value), period in product(values.items(), ("10", "100"))
        if figure.admits({"dispatcher": dispatcher, "period_ms": period})
        for seed in (0, 1)
    ]
    return figure, pd.DataFrame(rows)


def test_one_period_stands_for_all_where_no_load_is_looked_at() -> None:
    figure, rows = staleness()
    assert rows.groupby("dispatcher")["period_ms"].nunique().to_dict() == {"random": 1, "power_of_two": 2}
    table = figure.table(rows)
    own = table[(table["metric"] == "jct_s") & (table["dispatcher"] == "random")]
    assert own["period_ms"].tolist() == [10.0, 100.0]
    assert figure.reading(table)[0] == (
        "Mean JCT with power_of_two against random: -50.0% [-50.0%, -50.0%] with loads broadcast every 10 ms, "
        "-50.0% [-50.0%, -50.0%] every 100 ms."
    )


def accuracy() -> tuple[Accuracy, pd.DataFrame]:
    axes = product(("greedy", "reserve"), ("random",), ("none", "0.4", "1.0"), (0, 1))
    rows = [
        {"admission": admission, "dispatcher": dispatcher, "accuracy": share, "seed": seed}
        | {"jct_s": 1.0 if (admission, share) == ("reserve", "1.0") else 2.0, "ttft_s": 1.0, "num_recomputations": 3}
        for admission, dispatcher, share, seed in axes
    ]
    return Accuracy(workload="x", admission="greedy", dispatcher="random"), pd.DataFrame(rows)


def test_accuracy_is_relative_to_no_prediction() -> None:
    figure, rows = accuracy()
    table = figure.table(rows)
    own = table[table["metric"] == "jct_s"].set_index(["admission", "accuracy"])["ratio"]
    assert own.to_dict() == {
        **{("greedy", accuracy): 1.0 for accuracy in ("none", "0.4", "1.0")},
        **{("reserve", accuracy): 1.0 for accuracy in ("none", "0.4")},
        ("reserve", "1.0"): 0.5,
    }
    assert figure.reading(table)[0] == (
        "Mean JCT: best with reserve and random at accuracy 100% (-50.0%); predicting at all +0.0% where nobody uses "
        "it; from 40% to 100% right -50.0% to +0.0%, by policies."
    )


def regrets() -> tuple[RegretFigure, pd.DataFrame]:
    """Two decisions of each of two seeds; of the first, power_of_two had another candidate."""
    figure = RegretFigure(workload="mixed", blind=["random"])
    values = {"random": 0.5, "power_of_two": 2.0}
    rows = [
        {"dispatcher": dispatcher, "period_ms": period, "seed": seed, "later": "kept", "mean_jct_s": 10.0}
        | {f"{scope}_{against}_s": value + seed + place for scope in ("own", "all") for against in ("best", "chance")}
        | dict.fromkeys(
            ("own_other_s", "all_other_s"), -value if place == 0 and dispatcher != "random" else float("nan")
        )
        for (dispatcher, value), period in product(values.items(), ("100", "2000"))
        if figure.admits({"dispatcher": dispatcher, "period_ms": period})
        for seed, place in product((0, 1), (0, 1))
    ]
    return figure, pd.DataFrame(rows)


def test_regret_is_the_mean_over_decisions_and_then_over_seeds() -> None:
    figure, rows = regrets()
    table = figure.table(rows)
    keys = ["dispatcher", "period_ms", "scope", "against"]
    found = {tuple(row[key] for key in keys): row for row in table.to_dict("records")}
    assert found["power_of_two", 100.0, "own", "best"]["regret_s"] == 2.0 + 0.5 + 0.5
    half = 12.706 * 0.5  # Student, one degree of freedom; the seeds differ by 1
    by_chance = found["random", 2000.0, "all", "chance"]
    assert [by_chance[name] for name in ("regret_s", "low_s", "high_s")] == pytest.approx(
        [1.5, 1.5 - half, 1.5 + half], abs=1e-3
    )
    assert found["power_of_two", 2000.0, "own", "other"]["regret_s"] == -2.0
    assert isnan(found["random", 100.0, "own", "other"]["regret_s"])
    ends = "3.00 s [-3.35, 9.35]{} at 100 ms, 3.00 s [-3.35, 9.35]{} at 2000 ms"
    assert figure.reading(table) == [
        "Knowing what comes would have shortened the request's JCT, in the mean of single decisions: with random "
        f"1.50 s [-4.85, 7.85] of 10.0 s; with power_of_two {ends.format(*[' of 10.0 s'] * 2)}.",
        "Against a draw by chance, a decision made the sum of all JCTs longer (below 0, shorter): with random "
        f"1.50 s [-4.85, 7.85]; with power_of_two {ends.format('', '')}.",
        "The other candidate would have shortened the request's JCT (below 0, lengthened it): with power_of_two "
        "-2.00 s [-2.00, -2.00] at 100 ms, -2.00 s [-2.00, -2.00] at 2000 ms.",
        "Each decision was changed by itself, all other decisions as they were.",
    ]


CASES: dict[str, Callable[[], tuple[Any, pd.DataFrame]]] = {
    "attribution": lambda: (attribution(), steps(lambda on, seed: 1.0 + len(on) + seed)),
    "equal_hardware": equal,
    "rates": rates,
    "winners": winners,
    "staleness": staleness,
    "accuracy": accuracy,
    "regret": regrets,
}


@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_drawn_from_its_table_alone(name: str) -> None:
    figure, rows = CASES[name]()
    drawn: Figure = figure
    finding = finding_of(drawn, name, rows)
    assert finding.title and finding.readings and len(finding.drawing.axes) > 0
    assert finding.table.equals(figure.table(rows))
