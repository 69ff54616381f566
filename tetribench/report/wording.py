"""What a page says in words: what was compared, how it came out, and what to know before believing it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import inf, isnan
from typing import Any

from tetribench.metrics.compare import SystemResult
from tetribench.metrics.slo import Bounds
from tetribench.report.facts import Manifest
from tetribench.report.fairness import sizes_of
from tetribench.report.quantities import ratio_text, scale_for
from tetribench.report.runs import MAX_ABREAST, Run, serving_names
from tetribench.report.tables import Cell, outcome

HEADLINES = ("mean_ttft_s", "mean_jct_s", "resource_time_s", "perf_per_dollar_usual")
"""The metrics of the tiles; the first three make the sentence."""

NO_INTERVAL = (
    "One repeat, no interval: it does not say how far another seed or another hour would differ. repeats=5 does."
)

EARLY_STOP = "Repeats went on until the interval was narrow enough, which makes it a little too narrow."

RATIO_NOTE = "Better in green, worse in red and bold; that says only which way a ratio points."

VIRTUAL_TIME = (
    "Virtual time (cost model): a cost model predicts how long every step takes; nothing here was timed on hardware."
)


@dataclass(frozen=True, slots=True)
class Badge:
    """`level` is empty, amber or red."""

    text: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class TileLine:
    """One system against the baseline: the ratio, and the two values."""

    ratio: Cell
    of: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline metric, of each system that is compared with the baseline."""

    title: str
    lines: list[TileLine]


def title(run: Run) -> str:
    """The systems and the workload."""
    return f"{compared_systems(run.others, run.baseline)} on {run.facts.workload}"


def compared_systems(others: Sequence[str], baseline: str) -> str:
    """The systems by name, or their number where the names are many."""
    names = listed(others) if len(others) < MAX_ABREAST else f"{len(others)} systems"
    return f"{names} against {baseline}" if others else baseline


def sentence(run: Run, document: dict[str, Any]) -> str:
    """What was compared, and the headline ratios; amounts where there is one system only."""
    where = f"On {run.facts.num_requests:,} requests of workload {run.facts.workload}, in {run.time_kind}"
    rows = [row for row in document["comparison"] if row["metric"] in HEADLINES[:3]]
    titles = [_lower_first(row["title"]) for row in rows]
    if not run.others:
        amounts = [f"{_amount(row, run.baseline)} {title}" for row, title in zip(rows, titles, strict=True)]
        return f"{where}, {run.baseline} had {listed(amounts)}."
    ratios = {system: [ratio_text(row["ratios"][system]) for row in rows] for system in run.others}
    if len(ratios) == 1:
        parts = [f"{ratio} the {title}" for ratio, title in zip(ratios[run.others[0]], titles, strict=True)]
        return f"{where}, {run.others[0]} had {listed(parts)} of {run.baseline}."
    if run.has_many_systems:
        ranges = [_range(row) for row in rows]
        return f"{where}, {len(run.others)} systems against {run.baseline}: {'; '.join(ranges)}."
    clauses = [f"{system} {listed(each)}" for system, each in ratios.items()]
    return f"{where}, {listed(titles)} as ratios to {run.baseline}: {'; '.join(clauses)}."


def _range(row: dict[str, Any]) -> str:
    """The smallest and the largest ratio of a headline metric, and whose they are."""
    found = sorted((ratio, system) for system, ratio in row["ratios"].items() if ratio is not None)
    title = _lower_first(row["title"])
    if not found:
        return f"no ratio of the {title}"
    (low, lowest), (high, highest) = found[0], found[-1]
    return f"{ratio_text(low)} ({lowest}) to {ratio_text(high)} ({highest}) the {title}"


def badges(run: Run) -> list[Badge]:
    """The state of the run at a glance."""
    counts = accounts(run).values()
    num_failed, num_unfinished = (sum(each[fate] for each in counts) for fate in ("failed", "unfinished"))
    found = [
        Badge(run.status.state, "" if run.is_complete else "red"),
        Badge("valid") if run.validity.is_valid else Badge("INVALID", "red"),
        Badge(run.time_kind, "amber" if run.is_virtual else ""),
        Badge(f"{run.facts.num_requests:,} requests"),
        Badge(f"{run.facts.num_cut:,} cut to fit", "amber" if run.facts.num_cut else ""),
        Badge(f"{num_failed:,} failed", "red" if num_failed else ""),
        Badge(
            "one repeat" if run.num_repeats == 1 else f"{run.num_repeats} repeats",
            "" if run.num_repeats > 1 else "amber",
        ),
        Badge(f"seed {run.facts.seed}"),
    ]
    if num_unfinished:
        found.insert(-2, Badge(f"{num_unfinished:,} unfinished", "red"))
    return found


def interval(run: Run) -> str:
    """What the intervals are, or that there are none."""
    if run.num_repeats == 1:
        return NO_INTERVAL
    early = f" {EARLY_STOP}" if run.facts.until_interval_width is not None else ""
    return (
        f"Ratios with 95 % intervals over {run.num_repeats} repeats, each with other requests; better and worse are "
        f"said where the test, corrected for the number of metrics, and the same system against itself allow it.{early}"
    )


def stamps(run: Run) -> list[str]:
    """In a few letters, why a run is not what it should be: for the head of a table or a figure."""
    invalid = [] if run.validity.is_valid else [f"INVALID ({', '.join(run.validity.codes)})"]
    return [*([] if run.is_complete else [run.status.state.upper()]), *invalid]


def stamp(run: Run) -> list[str]:
    """Says over everything else that a run did not complete, or does not count."""
    found = []
    if not run.is_complete:
        reason = f": {run.status.reason}" if run.status.reason else ""
        found.append(f"{run.status.state.upper()}{reason}. What follows covers the run only as far as it came.")
    if not run.validity.is_valid:
        first, *others = run.validity.reasons
        more = f" {len(others)} more under Validity." if others else ""
        found.append(f"INVALID: {first.in_words}.{more} The numbers are as measured; nothing follows from them.")
    return found


def cautions(run: Run) -> Iterable[str]:
    """What a reader must know before believing a ratio."""
    if run.is_virtual:
        yield VIRTUAL_TIME
    yield interval(run)
    for system, counts in accounts(run).items():
        lost = {"failed": counts["failed"], "did not end": counts["unfinished"]}
        if any(lost.values()):
            fates = listed([f"{number:,} {fate}" for fate, number in lost.items() if number])
            yield f"{system}: of {counts['submitted']:,} requests {fates}; its latencies describe the rest."
    for name, (_, _, result) in zip(serving_names(run.served), run.served, strict=True):
        yield from _loss_cautions(name, result)
    yield from _size_cautions(run)
    which = " (first serving)" if run.is_served_again else ""
    for result in run.results:
        yield from _range_cautions(f"{result.system}{which}", result, run.manifests[result.system])


def accounts(run: Run) -> dict[str, Counter[str]]:
    """By system the fates of the requests of all its servings."""
    found: dict[str, Counter[str]] = {system: Counter() for system in run.systems}
    for one in run.served:
        found[one.result.system].update(asdict(one.result.accounting))
    return found


def steady_states(run: Run) -> list[str]:
    """Of each system where its steady state lies in how many of its servings, or why it has none."""
    found = []
    for system in run.systems:
        own = [one.result for one in run.served if one.result.system == system]
        steady = [result for result in own if not result.summary["steady_state"]["why_not"]]
        without = [reason for result in own if (reason := result.summary["steady_state"]["why_not"])]
        texts = [_window(steady[0], len(steady), len(own))] if steady else []
        texts += [f"no steady state{f' in {len(without)}' if len(own) > 1 else ''}; {without[0]}"] if without else []
        found.append(f"{system}: {'. '.join(texts)}.")
    return found


def _window(result: SystemResult, num_steady: int, num_servings: int) -> str:
    window, origin_s = result.summary["steady_state"], float(result.requests["arrived_s"].min())
    first_s, last_s = (window[edge] - origin_s for edge in ("from_s", "to_s"))
    which = f"in {num_steady} of {num_servings} servings, in the first of them " if num_servings > 1 else ""
    return (
        f"{which}from {first_s:.1f} s to {last_s:.1f} s after the first arrival; {window['num_requests']:,} requests "
        "arrived in between and finished"
    )


def _loss_cautions(name: str, result: SystemResult) -> Iterable[str]:
    for row in result.changes[result.changes["what"] == "lost"].itertuples():
        num_retried = int((result.requests["num_retries"] > 0).sum())
        yield (
            f"{name} lost {row.instance} during the run ({row.reason}); {num_retried:,} of its "
            "requests were begun or sent again, which is in their latencies."
        )


def _size_cautions(run: Run) -> Iterable[str]:
    sizes: dict[tuple[float, float], list[str]] = {}
    for system, size in sizes_of(run).items():
        sizes.setdefault(size, []).append(system)
    if len(sizes) > 1:
        each = [
            f"{listed(systems)} {'has' if len(systems) == 1 else 'have'} {devices:g} device{'s' * (devices != 1)} "
            f"and KV memory {'of unknown size' if isnan(tokens) else f'for {tokens:,.0f} tokens'}"
            for (devices, tokens), systems in sizes.items()
        ]
        yield f"The systems differ in size: {'; '.join(each)}. Latencies do not pay for that, device-seconds do."


FITTED_COLUMNS = {"prefill_tokens": "num_prefill_tokens", "sequences": "num_decode_tokens"}


def _range_cautions(name: str, result: SystemResult, manifest: Manifest) -> Iterable[str]:
    """What of a simulated run lies outside the iterations that the cost model was fitted on."""
    fitted: dict[str, int] = next((facts["fitted"] for facts in manifest.instances.values() if "fitted" in facts), {})
    iterations = result.iterations
    duration_s = iterations["ended_s"] - iterations["started_s"]
    for size, column in FITTED_COLUMNS.items():
        is_outside = iterations[column] > fitted.get(size, inf)
        if is_outside.any():
            share = duration_s[is_outside].sum() / duration_s.sum()
            yield (
                f"{name}: iterations of up to {iterations[column].max():,} {size.replace('_', ' ')}, and the "
                f"cost model was fitted on at most {fitted[size]:,}; {share:.0%} of the time of all iterations is "
                "extrapolated."
            )
    lengths = result.requests["num_prompt_tokens"] + result.requests["num_output_tokens"]
    is_outside = lengths > fitted.get("context_tokens", inf)
    if is_outside.any():
        yield (
            f"{name}: {is_outside.mean():.0%} of the requests grow longer than the contexts that the cost "
            f"model was fitted on, {fitted['context_tokens']:,} tokens; what they read beyond that is extrapolated."
        )


def tiles(run: Run, document: dict[str, Any]) -> list[Tile]:
    """The headline ratios; none where there is nothing to compare, or so much that it takes a table."""
    if not run.others or run.has_many_systems:
        return []
    rows = {row["metric"]: row for row in document["comparison"]}
    return [Tile(rows[name]["title"], _tile_lines(run, rows[name])) for name in HEADLINES]


def _tile_lines(run: Run, row: dict[str, Any]) -> list[TileLine]:
    lines = []
    for system in run.others:
        ratio = row["ratios"][system]
        amounts = f"{_amount(row, system)} against {_amount(row, run.baseline)}"
        of = f"{system}: {amounts}" if row["unit"] != "ratio" else f"{system}, against {run.baseline}"
        lines.append(
            TileLine(Cell(ratio_text(ratio), ratio, verdict=outcome(row["tests"][system], ratio, row["better"])), of)
        )
    return lines


def slo(run: Run) -> str:
    """The bounds that goodput is judged by; those of each SLA class where they are not the same for all."""
    classes = sorted({name for result in run.results for name in result.summary["slo"]})
    bounds = {name: run.facts.slo.bounds_of(name) for name in classes}
    if not any(bound_s is not None for each in bounds.values() for bound_s in each):
        return "No service level objective was set, so that every finished request counts towards goodput."
    if len(set(bounds.values())) == 1:
        return f"Service level objective: {_bounds_text(bounds[classes[0]])}."
    each_class = [f"{name}: {_bounds_text(own)}" for name, own in bounds.items()]
    return f"Service level objective of each SLA class. {'; '.join(each_class)}."


def costs(run: Run) -> str:
    """What of money and energy is known, and what would have to be said or be there to know the rest."""
    price = run.facts.cost.price_per_device_hour
    found = [one.result.summary["resources"]["energy_j"] for one in run.served]
    money = "no price was set (cost.price_per_device_hour)" if price is None else f"{price:g} USD per device and hour"
    if all(energy_j is not None for energy_j in found):
        energy = "what the energy counters of the GPUs say"
    elif run.is_virtual:
        energy = "not measured: in virtual time nothing is drawn"
    else:
        energy = "not measured: that takes NVIDIA GPUs that count it, and tetribench[power]"
    return f"Money: {money}. Energy: {energy}."


def _bounds_text(bounds: Bounds) -> str:
    named_s = {"TTFT": bounds.ttft_s, "TPOT": bounds.tpot_s}
    texts = [
        f"{name} ≤ {scale_for([bound_s], 's').text_with_unit(bound_s)}"
        for name, bound_s in named_s.items()
        if bound_s is not None
    ]
    return " and ".join(texts) or "none, every finished request counts"


def _amount(row: dict[str, Any], system: str) -> str:
    value = row["values"][system]
    return scale_for([value], row["unit"]).text_with_unit(value)


def listed(parts: Sequence[str]) -> str:
    """The parts as a sentence names them: a, b and c."""
    return "".join(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lower_first(title: str) -> str:
    """`Mean TTFT` inside a sentence; an abbreviation keeps its capitals."""
    return title if title[1:2].isupper() else title[0].lower() + title[1:]
