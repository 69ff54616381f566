"""The matrices: slowdowns and their differences on numbers small enough to check by hand."""

from itertools import product

import pandas as pd
import pytest

from tetribench.beyond.interference import CLASSES, METRICS, Interference
from tetribench.report.finding import finding_of

SLOWDOWNS = {"colocated": 3.0, "chunked": 2.0, "split": 1.5}
"""Beside HPLD at load 0.4, in every metric of every victim; beside others nothing changes."""


def rows() -> pd.DataFrame:
    """Seconds differ by seed, and so do slowdowns on `chunked`."""
    found = []
    beside = [("none", "0"), *product(CLASSES, ("0.2", "0.4"))]
    for system, (aggressor, load), seed in product(SLOWDOWNS, beside, (0, 1, 2)):
        is_hit = (aggressor, load) == ("HPLD", "0.4")
        spread = (0.2, 1.0, 5.0)[seed] if system == "chunked" else 1.0
        seconds = (1.0 + seed) * (SLOWDOWNS[system] * spread if is_hit else 1.0)
        values = {f"{victim}_{metric}": seconds for victim, metric in product(CLASSES, METRICS)}
        found.append({"system": system, "aggressor": aggressor, "load": load, "seed": seed, "hardware": "x", **values})
    return pd.DataFrame(found)


def figure() -> Interference:
    return Interference(together="colocated", apart="split")


def test_slowdowns_are_paired_by_seed_and_so_are_their_differences() -> None:
    table = figure().table(rows())
    assert list(dict.fromkeys(table["system"])) == [*SLOWDOWNS, "colocated over split", "chunked over split"]
    assert len(table) == 5 * 4 * 4 * 2 * 4
    hit = table[(table["victim"] == "LPHD") & (table["metric"] == "jct_s") & (table["aggressor"] == "HPLD")]
    at = {str(row["system"]): row for row in hit[hit["load"] == 0.4].to_dict("records")}
    assert {system: row["ratio"] for system, row in at.items()} == pytest.approx(
        {"colocated": 3.0, "chunked": 2.0, "split": 1.5, "colocated over split": 2.0, "chunked over split": 4 / 3}
    )
    colocated = [at["colocated"][column] for column in ("alone_s", "beside_s", "low", "high")]
    assert colocated == pytest.approx([2.0, 6.0, 3.0, 3.0])
    assert at["chunked"]["low"] < 1 < at["chunked"]["high"]
    assert hit[hit["system"].str.contains("over")][["alone_s", "beside_s"]].isna().to_numpy().all()
    assert (hit[hit["load"] == 0.2]["ratio"] == 1.0).all()


def test_what_is_undecided_is_grey_and_what_is_not_has_a_colour() -> None:
    finding = finding_of(figure(), "interference", rows())
    by_title = {axes.get_title("left"): axes for axes in finding.drawing.axes}
    assert len(by_title) == (3 + 1) * 3 and "colocated over split: p99 ITL" in by_title
    for title, num_coloured in {
        "colocated: mean JCT": 4,
        "chunked: mean JCT": 0,
        "colocated over split: mean JCT": 4,
    }.items():
        panel = by_title[title]
        assert sorted(text.get_text() for text in panel.texts)[:28] == ["1.00"] * 28
        greys = [patch for patch in panel.patches if len(set(patch.get_facecolor()[:3])) == 1]
        assert len(panel.patches) - len(greys) == num_coloured and len(panel.patches) == 32


def test_what_the_matrices_say() -> None:
    table = figure().table(rows())
    title, *metrics, chance = figure().reading(table)
    assert title.startswith("p99 ITL of LPLD beside HPLD at load 0.4: colocated x3.00 [3.00, 3.00]; chunked x2.00 [")
    assert title.endswith("colocated over split x2.00 [2.00, 2.00].") and "chunked over" not in title
    assert metrics[2] == (
        "Slowdown of mean JCT, colocated over split, in 32 pairs: larger in 4, smaller in 0, undecided in 28; "
        "most x2.00 [2.00, 2.00] for LPLD beside HPLD at load 0.4."
    )
    assert "Of 96 such intervals about 5" in chance
    heading, short = figure().in_short(table)
    assert heading == "p99 ITL beside aggressors at load 0.4, over alone"
    assert short["system"].tolist() == [
        *["colocated"] * 4,
        *["chunked"] * 4,
        *["split"] * 4,
        *["colocated over split"] * 4,
    ]
    assert short["HPLD"].tolist() == pytest.approx([3.0] * 4 + [2.0] * 4 + [1.5] * 4 + [2.0] * 4)


def test_a_class_that_nobody_finished_is_undefined_and_undecided() -> None:
    lost = rows()
    lost.loc[lost["aggressor"] == "HPHD", "LPLD_jct_s"] = float("nan")
    finding = finding_of(figure(), "interference", lost)
    own = finding.table[(finding.table["victim"] == "LPLD") & (finding.table["metric"] == "jct_s")]
    assert own[own["aggressor"] == "HPHD"]["ratio"].isna().all()
    (panel,) = (axes for axes in finding.drawing.axes if axes.get_title("left") == "split: mean JCT")
    assert [text.get_text() for text in panel.texts].count("?") == 2
