"""Whether a run can be believed: VALID, or INVALID for reasons that have codes.

An INVALID slot is not left out of the means, which would choose among the results, and not averaged in silently: the
whole run is INVALID, keeps its numbers, and gets no verdict.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from tetribench.metrics.client_error import ClientError
from tetribench.metrics.clocks import are_bounded
from tetribench.metrics.compare import SystemResult
from tetribench.metrics.limits import Limits
from tetribench.metrics.paired import Compared, Served
from tetribench.metrics.rule import Rule


class Code(StrEnum):
    """Why a run is INVALID."""

    CLIENT_ERROR = "client_error"
    LATE_SENDS = "late_sends"
    FAILURES = "failures"
    WRONG_LENGTHS = "wrong_lengths"
    TOO_FEW_SAMPLES = "too_few_samples"
    CLOCKS_UNBOUNDED = "clocks_unbounded"
    MACHINE_DISTURBED = "machine_disturbed"
    TTFT_BELOW_FLOOR = "ttft_below_floor"


REAL_TIME_ONLY = frozenset({Code.CLIENT_ERROR, Code.LATE_SENDS, Code.CLOCKS_UNBOUNDED, Code.MACHINE_DISTURBED})
"""In virtual time there is no client that could be slow, and one clock that nothing disturbs."""


@dataclass(frozen=True, slots=True)
class Reason:
    """`where` names the serving, empty for the run as a whole."""

    code: Code
    text: str
    where: str = ""

    @property
    def in_words(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(frozen=True, slots=True)
class Validity:
    """`unchecked` says of codes that were not looked at, why."""

    reasons: list[Reason]
    unchecked: dict[Code, str]

    @property
    def is_valid(self) -> bool:
        return not self.reasons

    @property
    def codes(self) -> list[Code]:
        """Each once, in the order in which they are listed above."""
        found = {reason.code for reason in self.reasons}
        return [code for code in Code if code in found]


def judge(
    served: Sequence[Served],
    compared: Sequence[Compared],
    client: ClientError | None,
    *,
    baseline: str,
    rule: Rule,
    limits: Limits,
    is_virtual: bool,
) -> Validity:
    """Every serving by itself, then the comparison."""
    reasons = [
        Reason(reason.code, reason.text, f"repeat {one.repeat}, slot {one.slot}, {one.result.system}")
        for one in served
        for reason in slot_reasons(one.result, limits, is_virtual=is_virtual)
    ]
    row = next(row for row in compared if row.headline.name == rule.metric)
    reasons += _too_few(row)
    if client is not None:
        reasons += _client_reasons(row, client, baseline, rule, limits, served)
    return Validity(reasons, _unchecked(served, client, limits, is_virtual))


def _unchecked(
    served: Sequence[Served], client: ClientError | None, limits: Limits, is_virtual: bool
) -> dict[Code, str]:
    if is_virtual:
        return {code: "virtual time: no client" for code in Code if code in REAL_TIME_ONLY}
    found: dict[Code, str] = {}
    if client is None:
        found[Code.CLIENT_ERROR] = "not calibrated (validity.calibration_s=null)"
    if limits.late_share is None:
        found[Code.LATE_SENDS] = "no limit (validity.late_share=null)"
    if limits.other_share is None:
        found[Code.MACHINE_DISTURBED] = "no limit (validity.other_share=null)"
    elif any(one.result.summary["machine"]["other_cores"] is None for one in served):
        found[Code.MACHINE_DISTURBED] = "/proc/stat does not say what other programs do"
    return found


def slot_reasons(result: SystemResult, limits: Limits, *, is_virtual: bool) -> Iterator[Reason]:
    """Of one serving, whose summary has `audit`, `clocks` and `machine`."""
    summary = result.summary
    yield from _failures(result, limits)
    yield from _wrong_lengths(summary["audit"]["tokens"])
    ttft_s = result.requests["ttft_s"]
    num_low = int((ttft_s <= limits.min_ttft_s).sum())
    if num_low:
        text = f"{num_low} TTFTs are not above {limits.min_ttft_s:g} s (validity.min_ttft_s)"
        yield Reason(Code.TTFT_BELOW_FLOOR, text)
    if not is_virtual:
        yield from _late_sends(result, limits)
        yield from _clocks(summary["clocks"])
        yield from _disturbed(summary["machine"], limits)


def _failures(result: SystemResult, limits: Limits) -> Iterator[Reason]:
    """Of all requests that were offered, whether they were sent or not."""
    num_asked, counts = result.summary["audit"]["arrivals"]["num_asked"], result.accounting
    num_lost = num_asked - counts.finished
    if num_lost > limits.failed_share * num_asked:
        text = (
            f"{num_lost} of {num_asked} requests did not end well, and {limits.failed_share:.1%} may "
            "(validity.failed_share)"
        )
        yield Reason(Code.FAILURES, text)


def _wrong_lengths(tokens: dict[str, Any]) -> Iterator[Reason]:
    if tokens["num_wrong"]:
        text = f"{tokens['num_wrong']} requests have wrong lengths, such as {tokens['wrong'][0]}"
        yield Reason(Code.WRONG_LENGTHS, text)
    if tokens["num_unaccounted"]:
        text = f"{tokens['all_computed']} tokens were computed, {tokens['all_delivered']} delivered"
        yield Reason(Code.WRONG_LENGTHS, text)


def _late_sends(result: SystemResult, limits: Limits) -> Iterator[Reason]:
    delays_s = result.requests["send_delay_s"]
    num_late, num_sent = int((delays_s > limits.late_s).sum()), int(delays_s.notna().sum())
    if limits.late_share is not None and num_late > limits.late_share * num_sent:
        text = (
            f"{num_late} of {num_sent} requests were sent more than {1e3 * limits.late_s:g} ms late, up to "
            f"{1e3 * delays_s.max():.0f} ms, and {limits.late_share:.1%} may be (validity.late_share)"
        )
        yield Reason(Code.LATE_SENDS, text)


def _clocks(bounds: dict[str, dict[str, Any]]) -> Iterator[Reason]:
    for name, each in bounds.items():
        if not are_bounded({name: each}):
            known = [f"{bound:.6f} s" if bound is not None else "unknown" for bound in each.values()]
            text = f"{name}: its clock may be ahead by {known[0]} and behind by {known[1]}; neither may be negative"
            yield Reason(Code.CLOCKS_UNBOUNDED, text)


def _disturbed(machine: dict[str, Any], limits: Limits) -> Iterator[Reason]:
    other_cores, num_cores = machine["other_cores"], machine["num_cores"]
    if other_cores is None or limits.other_share is None:
        return
    if other_cores > limits.other_share * num_cores:
        text = (
            f"other programs took {other_cores:.2f} of {num_cores} cores, and {limits.other_share:.0%} of them may be "
            "taken (validity.other_share)"
        )
        yield Reason(Code.MACHINE_DISTURBED, text)


def _too_few(row: Compared) -> Iterator[Reason]:
    """Percentiles are left out where they have too few samples; only the verdict cannot do without its own."""
    percent = None if row.headline.of is None else row.headline.of[1]
    lacking = [system for system, value in row.values.items() if not isfinite(value)]
    if percent is not None and lacking:
        text = f"{row.headline.title}, which the verdict is about, has too few samples in {', '.join(lacking)}"
        yield Reason(Code.TOO_FEW_SAMPLES, text)


def _client_reasons(
    row: Compared, client: ClientError, baseline: str, rule: Rule, limits: Limits, served: Sequence[Served]
) -> Iterator[Reason]:
    error_s, value_s = client_error_of(row, client, baseline, served)
    claims = [abs(ratio.value - 1.0) for ratio in row.ratios.values() if isfinite(ratio.value)]
    if not claims or not value_s > 0:
        return
    claim = max(min(claims), rule.margin)
    if error_s > limits.client_share * claim * value_s:
        text = (
            f"the client adds {1e3 * error_s:.2f} ms to {row.headline.title}, and may add {limits.client_share:.0%} "
            f"(validity.client_share) of the difference claimed, {1e3 * claim * value_s:.2f} ms"
        )
        yield Reason(Code.CLIENT_ERROR, text)


def client_error_of(row: Compared, client: ClientError, baseline: str, served: Iterable[Served]) -> tuple[float, float]:
    """What the client adds to a headline metric, and what it adds that to, both in seconds.

    To a latency of requests it adds what it adds to the TTFT, to a TPOT what it adds to the ITL. Other metrics are over
    the makespan, whose end is one delivery.
    """
    value_s, error = row.values[baseline], client.ttft
    if row.headline.of is None:
        own = [one.result.summary["resources"]["makespan_s"] for one in served if one.result.system == baseline]
        value_s = min((one for one in own if one is not None), default=float("nan"))
    elif row.headline.of[0] == "tpot_s":
        error = client.itl
    parts_s = [abs(error.mean_s or 0.0)]
    if row.headline.of is not None and row.headline.of[1] is not None:
        parts_s.append(abs(error.p99_s or 0.0))
    return max(parts_s), value_s
