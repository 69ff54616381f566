"""Figures of instances: what their time was spent on in all, and when."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory
from pandas.api.types import union_categoricals

from tetribench.metrics.compare import SystemResult
from tetribench.report.quantities import DASH, three_digits
from tetribench.report.style import MUTED, ROLES, WIDTH_IN, Margins, label, legend, new_figure, room_for, shorten

COMPUTING = ("prefill", "decode", "mixed")
"""Kinds of iteration; with `transfer` the kinds of span."""

_KINDS = [*COMPUTING, "transfer"]

NUM_STEPS = 1500
"""A gap that is narrower than the timeline's width over this is not drawn."""

_ROW_IN = (0.17, 0.36)
"""Height of a timeline's row in inches, between crowded and roomy; rows shrink to keep the figure near `_HEIGHT_IN`."""

_HEIGHT_IN = 9.0

MARKS: dict[str, dict[str, Any]] = {
    "flip": {"marker": "D", "facecolor": "white", "edgecolor": "black"},
    "lost": {"marker": "X", "facecolor": "black", "edgecolor": "white"},
}
"""Changes of an instance that are marked where they happened."""

_BAND_ROWS = 0.9
"""Room above a system's instances for its name, in rows."""


def work_spans(result: SystemResult) -> pd.DataFrame:
    """A row for each iteration and transfer, which is its sender's: `instance`, `kind`, `started_s`, `ended_s`.

    Times count from the first arrival; work before it is cut off.
    """
    iterations, transfers, names = result.iterations, result.transfers, result.instances.index
    has_prefill, has_decode = iterations["num_prefill_tokens"] > 0, iterations["num_decode_tokens"] > 0
    kinds = np.concatenate(
        [
            np.select([has_prefill & has_decode, has_decode], [_KINDS.index("mixed"), _KINDS.index("decode")], 0),
            np.full(len(transfers), _KINDS.index("transfer")),
        ]
    )
    instances = [pd.Categorical(each, names) for each in (iterations["instance"], transfers["source"])]
    origin_s = result.requests["arrived_s"].min()
    columns = {"instance": union_categoricals(instances), "kind": pd.Categorical.from_codes(kinds, pd.Index(_KINDS))}
    for edge in ("started_s", "ended_s"):
        columns[edge] = np.maximum(np.append(iterations[edge], transfers[edge]) - origin_s, 0.0)
    spans = pd.DataFrame(columns)
    return spans[spans["ended_s"] > spans["started_s"]]


def merge_spans(spans: pd.DataFrame, gap_s: float) -> pd.DataFrame:
    """Join spans of one kind that follow one another with at most `gap_s` between them.

    `spans` are those of one instance. Spans of another kind in between keep two spans apart.
    """
    spans = spans.sort_values("started_s", kind="stable")
    started_s, ended_s = spans["started_s"].to_numpy(), spans["ended_s"].to_numpy()
    is_new = (spans["kind"] != spans["kind"].shift()).to_numpy(copy=True)
    is_new[1:] |= started_s[1:] > np.maximum.accumulate(ended_s)[:-1] + gap_s
    firsts = np.flatnonzero(is_new)
    merged = spans.iloc[firsts].reset_index(drop=True)
    return merged.assign(ended_s=np.maximum.reduceat(ended_s, firsts) if len(firsts) else ended_s)


def resource_bars(results: Sequence[SystemResult], subtitle: str) -> Figure | None:
    """A bar for each system, as long as its resource usage time, split by what its instances computed.

    A system of opaque instances has no bar; None where no system has one.
    """
    parts = {result.system: _resource_parts(result) for result in results}
    longest_s = max(sum(each.values()) for each in parts.values())
    if not longest_s:
        return None
    margins = Margins(left=room_for(parts), right=0.85, top=0.82)
    title = "What the resource usage time was spent on"
    figure, [[axes]] = new_figure(title, subtitle, 0.5 * len(results), margins=margins)
    opaque = {result.system for result in results if result.instances["is_opaque"].any()}
    for place, (system, each) in enumerate(parts.items()):
        left_s = 0.0
        for kind, seconds in each.items():
            look = ROLES[kind]
            axes.barh(
                place, seconds, 0.66, left_s, color=look.colour, edgecolor="white", hatch=look.hatch, linewidth=0.8
            )
            if seconds >= 0.05 * longest_s:
                share = f"{seconds / sum(each.values()):.0%}"
                box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "linewidth": 0}
                axes.text(left_s + seconds / 2, place, share, ha="center", va="center", fontsize=8.5, bbox=box)
            left_s += seconds
        total = f"{DASH} (not told)" if system in opaque else f"{three_digits(left_s)} s"
        axes.text(left_s, place, f"  {total}", va="center", weight="bold")
    axes.set_xlim(0, longest_s)
    named_rows(axes, len(results) - 0.45, -0.55, range(len(results)), parts)
    label(axes, x="seconds, summed over instances, from the first arrival to the last work of each")
    kinds = [kind for kind in (*COMPUTING, "idle") if any(each[kind] > 0 for each in parts.values())]
    legend(figure, [_patch(kind) for kind in kinds])
    return figure


def _resource_parts(result: SystemResult) -> dict[str, float]:
    """Seconds by kind of iteration, and the idle rest of the resource usage time."""
    spans = work_spans(result)
    busy = (spans["ended_s"] - spans["started_s"]).groupby(spans["kind"]).sum()
    parts = {kind: float(busy.get(kind, 0.0)) for kind in COMPUTING}
    total_s = result.summary["resources"]["resource_time_s"] or 0.0
    return parts | {"idle": max(total_s - sum(parts.values()), 0.0)}


def timeline(results: Sequence[SystemResult], subtitle: str) -> Figure:
    """A row for each instance of each system: iterations as bars, the transfers that it sends as a strip below.

    Flips and losses are marked; a row is as long as its instance was provisioned.
    """
    num_instances = sum(len(result.instances) for result in results)
    height = num_instances + _BAND_ROWS * len(results)
    names = [name for result in results for name in result.instances.index]
    margins = Margins(left=room_for(names), top=0.86)
    row_in = min(max(_HEIGHT_IN / height, _ROW_IN[0]), _ROW_IN[1])
    figure, [[axes]] = new_figure("What each instance did, and when", subtitle, row_in * height, margins=margins)
    spans = {result.system: work_spans(result) for result in results}
    ends_s = [float(each["ended_s"].max()) for each in spans.values() if len(each)]
    opaque = [result for result in results if result.instances["is_opaque"].any()]
    ends_s += [result.summary["resources"]["makespan_s"] or 0.0 for result in opaque]
    end_s = max(ends_s, default=0.0) or 1.0
    place, ticks, labels = 0.0, list[float](), list[str]()
    for result in results:
        at = blended_transform_factory(figure.transFigure, axes.transData)
        axes.text(0.12 / WIDTH_IN, place + 0.55, shorten(result.system, 60), transform=at, weight="bold", va="center")
        place += _BAND_ROWS
        own = spans[result.system]
        origin_s = float(result.requests["arrived_s"].min())
        _steady_window(axes, place, len(result.instances), result.summary["steady_state"], (origin_s, end_s))
        for instance in ordered({str(name): role for name, role in result.instances["role"].items()}):
            life_s = [float(result.instances[edge][instance]) - origin_s for edge in ("started_s", "stopped_s")]
            first_s, last_s = max(0.0, life_s[0]), min(end_s, life_s[1])  # in this order, NaN counts for nothing
            look = ROLES["not told" if result.instances["is_opaque"][instance] else "idle"]
            drawn = axes.broken_barh([(first_s, last_s - first_s)], (place, 0.8), facecolor=look.colour, linewidth=0)
            if look.hatch:
                drawn.set(hatch=look.hatch, edgecolor=ROLES["idle"].colour)
            _instance_row(axes, place, own[own["instance"] == instance], end_s)
            changes = result.changes[result.changes["instance"] == instance]
            for what, mark in MARKS.items():
                times_s = changes.loc[changes["what"] == what, "time_s"] - origin_s
                axes.scatter(times_s, [place + 0.4] * len(times_s), 45, zorder=5, clip_on=False, **mark)
            ticks.append(place + 0.4)
            labels.append(instance)
            place += 1.0
    axes.set_xlim(0, end_s)
    named_rows(axes, height, 0.0, ticks, labels)
    axes.tick_params(axis="y", labelsize=min(9.0, 45.0 * row_in))
    label(axes, x="time since the first arrival (s)")
    used = {kind for each in spans.values() for kind in each["kind"].unique()}
    happened = {what for result in results for what in result.changes["what"]}
    marks = [_mark(what) for what in MARKS if what in happened]
    patches = [_patch(kind) for kind in (*COMPUTING, "transfer") if kind in used]
    untold = [_patch("not told")] if opaque else []
    legend(figure, [*patches, _patch("idle", hatch=""), *untold, *marks])
    return figure


def _steady_window(
    axes: Axes, place: float, num_rows: int, window: dict[str, Any], span_s: tuple[float, float]
) -> None:
    """Pale rows outside of the steady state, and a bracket over it in the row of the system's name, which is above
    `place`. `span_s` are the first arrival and, counted from it, the end of the axis."""
    bracket, (origin_s, end_s) = place - 0.3, span_s
    if window["why_not"]:
        axes.text(end_s, bracket, "no steady state", ha="right", va="center", fontsize=8, color=MUTED)
        return
    first_s, last_s = (window[edge] - origin_s for edge in ("from_s", "to_s"))
    for pale_s in ((0.0, first_s), (last_s, end_s)):
        axes.fill_between(pale_s, place, place + num_rows - 0.2, color="white", alpha=0.6, linewidth=0, zorder=4)
    axes.plot([first_s, last_s], [bracket] * 2, "|-", color=MUTED, linewidth=1.0, markersize=6)
    box = {"boxstyle": "square,pad=0.2", "facecolor": "white", "linewidth": 0}
    axes.text(
        (first_s + last_s) / 2, bracket, "steady state", ha="center", va="center", fontsize=8, color=MUTED, bbox=box
    )


def ordered(roles: Mapping[str, Any]) -> list[str]:
    """Names of a system's instances: those that started as prefill instances first, then by number.

    `roles` are by instance the ones that they started with.
    """
    by_name = sorted(roles, key=lambda name: (len(name), name))
    return sorted(by_name, key=lambda name: (roles[name] != "prefill", str(roles[name])))


def _instance_row(axes: Axes, place: float, spans: pd.DataFrame, end_s: float) -> None:
    is_transfer = spans["kind"] == "transfer"
    lane = 0.6 if is_transfer.any() else 0.8
    for found, extent in ((spans[~is_transfer], (place, lane)), (spans[is_transfer], (place + lane, 0.8 - lane))):
        merged = merge_spans(found, end_s / NUM_STEPS)
        for kind, bars in merged.groupby("kind"):
            look = ROLES[str(kind)]
            widths_s = bars["ended_s"] - bars["started_s"]
            spans_s = list(zip(bars["started_s"], widths_s, strict=True))
            drawn = axes.broken_barh(spans_s, extent, facecolor=look.colour, linewidth=0)
            if look.hatch:
                drawn.set(hatch=look.hatch, edgecolor="white")


def named_rows(axes: Axes, bottom: float, top: float, ticks: Iterable[float], labels: Iterable[str]) -> None:
    """Named rows from top to bottom, without tick marks and horizontal grid."""
    axes.set_ylim(bottom, top)
    axes.set_yticks(list(ticks), [shorten(text) for text in labels])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _mark(what: str) -> Line2D:
    look = MARKS[what]
    colours = {"markerfacecolor": look["facecolor"], "markeredgecolor": look["edgecolor"]}
    return Line2D([], [], linestyle="", label=what, marker=look["marker"], markersize=7, **colours)


def _patch(kind: str, hatch: str | None = None) -> Patch:
    look = ROLES[kind]
    return Patch(facecolor=look.colour, edgecolor="white", hatch=look.hatch if hatch is None else hatch, label=kind)
