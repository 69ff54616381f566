"""Whether the run counts, what the client and the machine did, and what was asked against what was delivered."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tetribench.metrics.client_error import ClientError, StatisticError
from tetribench.metrics.compare import Summary
from tetribench.metrics.latency import PERCENTILES
from tetribench.metrics.paired import Served
from tetribench.metrics.validity import Code
from tetribench.report.frames import metric_of
from tetribench.report.quantities import DASH, three_digits
from tetribench.report.runs import Run
from tetribench.report.serving_tables import CLASS_METRICS
from tetribench.report.tables import Cell, Row, Table

MEANINGS = {
    Code.CLIENT_ERROR: "what the client adds, against the difference that is claimed",
    Code.LATE_SENDS: "requests sent later than they should have been",
    Code.FAILURES: "requests that failed or did not end",
    Code.WRONG_LENGTHS: "tokens asked for, sent, computed and delivered agree",
    Code.TOO_FEW_SAMPLES: "samples for the verdict's metric",
    Code.CLOCKS_UNBOUNDED: "nothing is received before it is sent",
    Code.MACHINE_DISTURBED: "other programs on the run's cores",
    Code.TTFT_BELOW_FLOOR: "a TTFT that no server can have",
}


def document(run: Run) -> dict[str, Any]:
    """The content of validity.json."""
    return {
        "is_valid": run.validity.is_valid,
        "codes": list(run.validity.codes),
        "reasons": [asdict(reason) for reason in run.validity.reasons],
        "unchecked": dict(run.validity.unchecked),
        "client": None if run.client is None else asdict(run.client),
        "slots": [
            {
                "repeat": one.repeat,
                "slot": one.slot,
                "system": one.result.system,
                **{name: one.result.summary[name] for name in ("audit", "clocks", "machine")},
            }
            for one in run.served
        ],
    }


def check_table(run: Run) -> Table:
    """A row for each code: kept, broken and how, or why it was not looked at."""
    table = Table("Validity", ("check",), ("about", "found"))
    for code in Code:
        reasons = [reason for reason in run.validity.reasons if reason.code == code]
        if reasons:
            more = f" ({len(reasons)} in all)" if len(reasons) > 1 else ""
            found = Cell(f"INVALID. {reasons[0].in_words}{more}", verdict="worse")
        else:
            found = Cell(run.validity.unchecked.get(code, "kept"), verdict="muted" * (code in run.validity.unchecked))
        table.rows.append(Row((str(code),), (Cell(MEANINGS[code]), found)))
    return table


def client_rows(run: Run) -> list[tuple[str, str]]:
    """What was found on the null server before the first serving."""
    client = run.client
    if client is None:
        return []
    return [
        ("added to TTFT", _error_text(client.ttft)),
        ("added to ITL", _error_text(client.itl)),
        ("sent late", f"{_ms(client.mean_send_delay_s)} in the mean, {_ms(client.max_send_delay_s)} at most"),
        ("requests/s asked and delivered", _rates(client)),
        (
            "load",
            f"{client.num_requests:,} requests, {client.num_streams} at once, {client.tokens_per_s:,.0f} tokens/s",
        ),
    ]


def _error_text(error: StatisticError) -> str:
    if error.mean_s is None:
        return DASH
    if error.p99_s is None:
        return f"{_ms(error.mean_s)} to the mean; {error.num_samples} samples are too few for p99"
    return f"{_ms(error.mean_s)} to the mean, {_ms(error.p99_s)} to p99"


def _rates(client: ClientError) -> str:
    if client.asked_per_s is None or client.delivered_per_s is None:
        return "all at one moment"
    return f"{client.asked_per_s:.3f} and {client.delivered_per_s:.3f}"


def _ms(seconds: float) -> str:
    return f"{round(1e3 * seconds, 2) + 0.0:.2f} ms"  # no minus before a zero


def arrival_table(run: Run) -> Table:
    """Of each serving, the arrivals asked for and delivered."""
    note = (
        "CV: coefficient of variation of the gaps between arrivals. Schedule: the largest share of requests that were "
        "due and not sent. Process: Kolmogorov-Smirnov distance of the gaps to the process asked for, and the "
        "probability of a larger one. In a closed loop, requests in the system."
    )
    columns = ("requests", "rate (1/s)", "CV", "schedule", "process", "in the system", "late (ms), mean", "p99", "max")
    table = Table("Arrivals: asked / delivered", ("repeat", "serving"), columns, note=note, is_dense=True)
    for one in run.served:
        arrivals = one.result.summary["audit"]["arrivals"]
        delay_s = arrivals["send_delay_s"]
        process = DASH
        if arrivals["process_distance"] is not None:
            process = f"{arrivals['process_distance']:.3f}, p {arrivals['process_p']:.2f}"
        texts = (
            f"{arrivals['num_asked']:,} / {arrivals['num_sent']:,}",
            _pair(arrivals["asked_per_s"], arrivals["delivered_per_s"]),
            _pair(arrivals["asked_cv"], arrivals["delivered_cv"]),
            _number(arrivals["schedule_distance"]),
            process,
            _pair(arrivals["asked_concurrency"], arrivals["mean_concurrency"]),
            *(
                _number(None if seconds is None else 1e3 * seconds)
                for seconds in map(delay_s.get, ("mean", "p99", "max"))
            ),
        )
        table.rows.append(_row(one, texts))
    return table


def token_table(run: Run) -> Table:
    """Of each serving, the tokens counted at each place."""
    columns = (
        "requests",
        "prompt: asked",
        "sent",
        "computed",
        "response: asked",
        "delivered",
        "stopped early",
        "wrong",
    )
    may_stop = any(one.result.summary["audit"]["tokens"]["may_stop"] for one in run.served)
    ends = "A stop token may end a response" if may_stop else "Stop tokens are ignored: responses run to their length"
    note = f"Of requests that finished and were not begun again; a prompt that was computed twice counts once. {ends}."
    table = Table("Tokens at each place", ("repeat", "serving"), columns, note=note, is_dense=True)
    names = (
        *("num_requests", "prompt_asked", "prompt_sent", "prompt_computed"),
        *("output_asked", "output_delivered", "num_stopped", "num_wrong"),
    )
    for one in run.served:
        tokens = one.result.summary["audit"]["tokens"]
        table.rows.append(_row(one, [DASH if tokens[name] is None else f"{tokens[name]:,}" for name in names]))
    return table


def machine_table(run: Run) -> Table:
    """Of each serving in real time, what else the machine did, and how close its clocks are known to be."""
    table = Table("Machine and clocks", ("repeat", "serving"), ("other programs (cores)", "clocks agree within (ms)"))
    for one in run.served if not run.is_virtual else ():
        summary = one.result.summary
        bounds = [bound for each in summary["clocks"].values() for bound in each.values()]
        widest = None if not bounds or None in bounds else 1e3 * max(bounds)
        table.rows.append(_row(one, (_number(summary["machine"]["other_cores"]), _number(widest))))
    return table


def left_out(pooled: Mapping[str, Summary]) -> str:
    """Percentiles that have too few samples in some system."""
    found = []
    for column in CLASS_METRICS:
        summaries = [summary["metrics"]["overall"][column] for summary in pooled.values()]
        missing = [f"p{percent}" for percent in PERCENTILES if any(one[f"p{percent}"] is None for one in summaries)]
        if missing and any(one["count"] for one in summaries):
            found.append(f"{', '.join(missing)} of {metric_of(column).title}")
    return f"Left out for too few samples: {'; '.join(found)}." if found else ""


def _row(one: Served, texts: Iterable[str]) -> Row:
    return Row((str(one.repeat), f"{one.slot} {one.result.system}"), tuple(map(Cell, texts)))


def _pair(asked: float | None, delivered: float | None) -> str:
    return DASH if asked is None and delivered is None else f"{_number(asked)} / {_number(delivered)}"


def _number(value: float | None) -> str:
    return DASH if value is None else three_digits(value)
