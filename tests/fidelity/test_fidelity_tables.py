"""Tables of errors and the figure, from rows made by hand."""

from typing import Any

import pandas as pd
import pytest

from tetribench.fidelity.errors import error_table, headlines, in_short, ratio_table, run_table, stage_table
from tetribench.fidelity.figure import FidelityFigure, quietness
from tetribench.fidelity.rows import MACHINE, OUTSIDE
from tetribench.report.style import drawing


def rows(*, error: float = 0.02, others: float = 0.0, outside: float = 0.0) -> pd.DataFrame:
    """Three seeds of two systems, the first twice as slow; virtual time is off by `error`, half of it by its steps."""
    found: list[dict[str, Any]] = []
    for seed in range(3):
        for system, factor in {"split": 2.0, "base": 1.0}.items():
            run = {"seed": seed, "system": system, "serving": 0}
            for metric, size in {"ttft_s": 0.5, "ttft_engine_s": 0.4, "prefill_s": 0.4, "jct_s": 4.0}.items():
                measured = factor * size * (1 + 0.01 * seed)
                times = {"measured": measured, "steps": measured * (1 + error / 2)}
                times |= dict.fromkeys(("overheads", "virtual"), measured * (1 + error))
                found.append({**run, "class": "overall", "metric": metric, "statistic": "mean", **times})
            facts = {
                "probe_median_s": 0.1,
                "probe_p90_s": 0.1,
                "other_cores": others,
                "num_attempts": 1,
                OUTSIDE: outside,
            }
            for name, value in facts.items():
                found.append({**run, "class": MACHINE, "metric": name, "statistic": "value", "measured": value})
    return pd.DataFrame(found)


def test_errors_and_what_they_sum_up_from() -> None:
    errors = error_table(rows())
    (table,) = errors[(errors["system"] == "base") & (errors["metric"] == "ttft_s")].to_dict("records")
    assert table["measured_s"] == pytest.approx(0.505)
    assert table["error"] == pytest.approx(0.02)
    assert [table[part] for part in ("steps", "overheads", "decisions")] == pytest.approx([0.01, 0.01, 0.0])
    assert (table["within_bounds"], table["num_seeds"]) == ("yes", 3)


@pytest.mark.parametrize(("error", "verdict"), [(0.049, "yes"), (-0.06, "no"), (0.2, "no")])
def test_bounds_are_for_the_size_of_the_error(error: float, verdict: str) -> None:
    errors = headlines(error_table(rows(error=error)))
    assert set(errors["within_bounds"]) == {verdict}
    assert list(in_short(errors.assign(**{"class": "overall"}))["error"]) == pytest.approx([100 * error] * 4)


def test_a_seed_is_the_mean_of_its_servings_and_these_differ_too() -> None:
    slow = rows().assign(serving=1)
    slow["measured"] *= 1.1
    errors = headlines(error_table(pd.concat([rows(), slow])))
    (table,) = errors[(errors["system"] == "base") & (errors["metric"] == "jct_s")].to_dict("records")
    assert table["measured_s"] == pytest.approx(4.04 * 1.05) and table["num_seeds"] == 3
    assert table["error"] == pytest.approx(1.02 / 1.05 - 1)
    assert [table["real_median"], table["real_p90"]] == pytest.approx([0.1 / 1.05] * 2)
    assert error_table(rows())["real_median"].isna().all()


def test_systems_against_each_other() -> None:
    ratios = ratio_table(rows())
    assert set(ratios["order"]) == {"agrees"}
    assert list(ratios["measured"]) == pytest.approx([2.0, 2.0])
    swapped = rows()
    swapped.loc[swapped["system"] == "split", "virtual"] /= 4
    assert set(ratio_table(swapped)["order"]) == {"differs"}
    noisy = rows()
    noisy.loc[(noisy["system"] == "split") & (noisy["seed"] == 1), "measured"] /= 4
    assert set(ratio_table(noisy)["order"]) == {"undecided"}


def test_stages_sum_up_to_the_whole() -> None:
    stages = stage_table(rows())
    own = stages[(stages["system"] == "base") & (stages["of"] == "ttft_s")].set_index("stage")
    assert own["share"].sum() == pytest.approx(0.02)
    assert own["measured_s"]["delivery_s"] == pytest.approx(0.101)


def test_the_figure_says_on_its_face_what_it_is_worth() -> None:
    figure = FidelityFigure()
    for made, words in {
        "quiet": (rows(), ["all iterations inside the calibrated range", "machine quiet in all runs"]),
        "not": (rows(others=0.5, outside=0.25), ["OUTSIDE the calibrated range: 25.0%", "NOT QUIET in 6 of 6 runs"]),
    }.values():
        table = figure.table(made)
        with drawing():
            drawn = figure.draw(table)
        written = " ".join(text.get_text() for text in drawn.texts)
        assert all(word in written for word in words)
    unknown = rows()
    said = figure.reading(figure.table(unknown[unknown["metric"] != OUTSIDE]))
    assert "The profile does not say what range it was calibrated on." in said
    assert any("split: Mean TTFT is off by 2.0%" in sentence and "within the bounds" in sentence for sentence in said)
    assert any("the order agrees" in sentence for sentence in said)


def test_causes_that_outweigh_the_error_are_not_shown() -> None:
    far, figure = rows(), FidelityFigure()
    far.loc[(far["system"] == "base") & (far["metric"] == "ttft_s"), "steps"] *= 3
    table = figure.table(far)
    said = [sentence for sentence in figure.reading(table) if "is off by" in sentence]
    assert [sentence.partition(":")[0] for sentence in said if "cannot be parted" in sentence] == ["base"]
    assert sum("by other decisions" in sentence for sentence in said) == 3
    with drawing():
        panels = figure.draw(table).axes
    written = [panel.get_xlabel() for panel in panels]
    assert ["base: cannot be parted" in text for text in written] == [False, False, True, False, False, False]


def test_runs_are_quiet_beside_the_calibration_and_one_another() -> None:
    assert run_table(rows(others=0.05))["quiet"].eq("yes").all()
    calibrated = [
        {**run, "class": MACHINE, "metric": f"calibration_probe_{name}_s", "statistic": "value", "measured": 0.05}
        for run in rows()[["seed", "system", "serving"]].drop_duplicates().to_dict("records")
        for name in ("median", "p90")
    ]
    assert run_table(pd.concat([rows(), pd.DataFrame(calibrated)]))["quiet"].eq("no").all()
    one_slow = rows()
    one_slow.loc[(one_slow["metric"] == "probe_median_s") & (one_slow["seed"] == 1), "measured"] *= 1.5
    assert run_table(one_slow).groupby("seed")["quiet"].first().to_dict() == {0: "yes", 1: "no", 2: "yes"}


def test_repeated_runs_are_told() -> None:
    made = rows()
    made.loc[(made["metric"] == "num_attempts") & (made["seed"] == 1), "measured"] = 3
    assert quietness(made) == "machine quiet in all runs (the quietest of 10 attempts)"
