"""The answer in a sentence: is apart better than together, by how much, and how sure that is."""

from collections.abc import Iterable
from math import isfinite

from tetribench.metrics.paired import Compared, Outcome, Ratio
from tetribench.report.quantities import ratio_text
from tetribench.report.runs import Run

SPLIT_ROLES = frozenset({"prefill", "decode"})

SAID = {
    Outcome.BETTER: "is better than",
    Outcome.WORSE: "is worse than",
    Outcome.EQUIVALENT: "is equivalent to",
    Outcome.UNDECIDED: "against",
    Outcome.UNKNOWN: "against",
}


def verdict_sentences(run: Run) -> list[str]:
    """One for each system that is compared with the baseline; of an INVALID run, why it has none."""
    if not run.validity.is_valid:
        return [f"No verdict: the run is INVALID ({', '.join(run.validity.codes)})."]
    rows = {row.headline.name: row for row in run.compared}
    return [_sentence(run, rows, system) for system in run.others]


def _sentence(run: Run, rows: dict[str, Compared], system: str) -> str:
    row = rows[run.facts.verdict.metric]
    ratio = row.ratios[system]
    pair = f"{_named(run, system)} {SAID[ratio.outcome]} {_named(run, run.baseline)}"
    title = row.headline.title
    if ratio.outcome is Outcome.UNKNOWN:
        why = "one repeat has no interval; ask for more with repeats=5"
        return f"No verdict on {pair.replace(' against ', ' and ')}: {title} {ratio_text(ratio.value)}, and {why}."
    measured = f"{title} {with_interval(ratio)} over {run.num_repeats} repeats"
    if ratio.outcome is Outcome.UNDECIDED:
        return f"Undecided, {pair}: {measured}{_why_undecided(ratio)}."
    band = f"; the same system against itself: within {ratio.band:.1%}" if isfinite(ratio.band) else ""
    margin = f", all within the margin of {run.facts.verdict.margin:.0%}" if ratio.outcome is Outcome.EQUIVALENT else ""
    return f"{pair}: {measured}{margin}{band}.{_others(rows.values(), row, system, ratio.outcome)}"


def _named(run: Run, system: str) -> str:
    """With what it is, together or apart, where its instances say so."""
    roles = {facts.get("role") for facts in run.manifests[system].instances.values()}
    kind = "split" if roles & SPLIT_ROLES else "colocated" if roles else ""
    return f"{system} ({kind})" if kind else system


def _why_undecided(ratio: Ratio) -> str:
    if ratio.is_inside_band:
        return f", no further from 1 than the same system against itself (within {ratio.band:.1%})"
    return f"; this experiment would have found a change of {ratio.smallest:.0%} or more"


def with_interval(ratio: Ratio) -> str:
    """The ratio, and its 95 % interval where it has one."""
    text = ratio_text(ratio.value)
    return f"{text} [{ratio.low:.2f}, {ratio.high:.2f}]" if isfinite(ratio.low) else text


def _others(rows: Iterable[Compared], primary: Compared, system: str, outcome: Outcome) -> str:
    """Headline metrics that are decided the other way."""
    opposite = {Outcome.BETTER: Outcome.WORSE, Outcome.WORSE: Outcome.BETTER}.get(outcome)
    found = [
        f"{row.headline.title} {with_interval(row.ratios[system])}"
        for row in rows
        if row is not primary and system in row.ratios and opposite and row.ratios[system].outcome is opposite
    ]
    return f" But {opposite}: {', '.join(found)}." if found else ""
