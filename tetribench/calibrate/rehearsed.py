"""What a rehearsal says of iterations, of the time between them, and of messages."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log2
from statistics import median

import numpy as np
from scipy.optimize import nnls

from tetribench.calibrate.batches import RecordedBatch, are_woken, beside_seconds, by_instance
from tetribench.calibrate.rehearsal import Rehearsal
from tetribench.calibrate.steps import Point, Step
from tetribench.engine.cost_engine import IDLE_AFTER_S
from tetribench.engine.model import ModelShape

FEWEST_DECODES, FEWEST_PROMPTS = 12, 4
"""So many iterations of a kind make a point; fewer are left out."""
MOST_ITERATIONS = 48
"""Of a kind, evenly from all of them: more would not settle a point better, and each has to be predicted."""
HELD_UP = 3.0
"""Times the median of its kind: an iteration that took longer was held up by something that no model knows."""
Kind = tuple[str, str, int, int, bool]
"""Role, what it computes, the sizes that its iterations have about in common, and whether most of each was beside
another instance's."""


def points_of(rehearsal: Rehearsal, shape: ModelShape) -> Iterator[Point]:
    """One for each kind of iteration, all of which count together."""
    kinds: defaultdict[Kind, list[tuple[RecordedBatch, float, bool]]] = defaultdict(list)
    found_beside_s, found_woken = beside_seconds(rehearsal.batches), are_woken(rehearsal.batches)
    for batch, beside_s, is_woken in zip(rehearsal.batches, found_beside_s, found_woken, strict=True):
        kinds[_kind(batch, beside_s)].append((batch, beside_s, is_woken))
    for kind in sorted(kinds):
        role, what, size, other, is_beside = kind
        middle_s = median(batch.seconds for batch, *_ in kinds[kind])
        found = [one for one in kinds[kind] if one[0].seconds < HELD_UP * middle_s]
        if len(found) < (FEWEST_DECODES if what == "decodes" else FEWEST_PROMPTS):
            continue
        chosen = [found[index] for index in _evenly(len(found))]
        first, *rest = [_step(batch) for batch, *_ in chosen]
        yield Point(
            group=rehearsal.name,
            series=f"{role}: {what}, {_about(what, other)}, {'beside others' if is_beside else 'alone'}",
            x=float(size),
            model=shape,
            step=first,
            others=tuple((step, 1) for step in rest),
            measured_s=sum(batch.seconds for batch, *_ in chosen),
            beside_s=sum(beside_s for _, beside_s, _ in chosen),
            num_woken=sum(is_woken for *_, is_woken in chosen),
            num_timed=len(chosen),
        )


def _kind(batch: RecordedBatch, beside_s: float) -> Kind:
    """Decodes by their number and mean context, prompts by their tokens and whether something came before them."""
    role, is_beside = batch.instance.partition("-")[0], beside_s > batch.seconds / 2
    if batch.chunks:
        num_tokens = sum(size for *_, size in batch.chunks)
        return role, "prompts", 2 ** round(log2(num_tokens)), int(any(start for _, start, _ in batch.chunks)), is_beside
    num = len(batch.decodes)
    context = sum(num_tokens for _, num_tokens in batch.decodes) / num
    return role, "decodes", num if num < 8 else 2 * round(num / 2), 2 ** round(log2(context)), is_beside


def _about(what: str, other: int) -> str:
    if what == "decodes":
        return f"contexts about {other}"
    return "later chunks" if other else "from the first token"


def _step(batch: RecordedBatch) -> Step:
    chunks = tuple((start, size) for _, start, size in batch.chunks)
    return Step(chunks, tuple(num_tokens for _, num_tokens in batch.decodes))


def _evenly(num: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, num - 1, min(num, MOST_ITERATIONS))})


def gaps_between(rehearsals: Sequence[Rehearsal]) -> tuple[float, float]:
    """Seconds from one decode iteration to the next that waits for it: a constant, and a slope by its sequences."""
    gaps_s: defaultdict[int, list[float]] = defaultdict(list)
    for rehearsal in rehearsals:
        for own in by_instance(rehearsal.batches).values():
            for before, after in pairwise(own):
                gap_s = after.started_s - before.ended_s
                if gap_s < IDLE_AFTER_S and not before.chunks and not after.chunks:
                    gaps_s[len(after.decodes)].append(gap_s)
    settled = {num: median(found) for num, found in gaps_s.items() if len(found) >= FEWEST_DECODES}
    (constant, slope), _ = nnls([[1.0, num] for num in settled], list(settled.values()))
    return float(constant), float(slope)


def messages_s(rehearsals: Sequence[Rehearsal]) -> Iterator[float]:
    """From the routing of a request until its instance begins it, of those that found their instance idle."""
    for rehearsal in rehearsals:
        first: dict[int, RecordedBatch] = {}
        for batch in rehearsal.batches:
            for request in batch.requests:
                first.setdefault(request, batch)
        ends_s = {name: [one.ended_s for one in own] for name, own in by_instance(rehearsal.batches).items()}
        for request, (instance, routed_s) in rehearsal.routed.items():
            if request in first and first[request].instance == instance:
                started_s, own_s = first[request].started_s, ends_s[instance]
                if bisect_left(own_s, routed_s) == bisect_right(own_s, started_s):  # nothing ended while it waited
                    yield started_s - routed_s
