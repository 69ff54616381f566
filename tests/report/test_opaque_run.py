"""A report of a system that tells nothing of itself, beside one that does."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.run_folders import slot
from tetribench.core.events import CLIENT, GLOBAL_SCHEDULER, EventKind
from tetribench.metrics.log import encode_event, read_events
from tetribench.report.fairness import arm_tables
from tetribench.report.figure_instances import resource_bars, timeline
from tetribench.report.quantities import DASH
from tetribench.report.runs import load_run
from tetribench.report.serving_tables import resource_table
from tetribench.report.style import drawing
from tetribench.report.write import write_report

LIFE = (EventKind.INSTANCE_STARTED, EventKind.INSTANCE_READY, EventKind.INSTANCE_STOPPED)


def silence(path: Path, system: str) -> None:
    """Leave in the log what the client and the router know, and what is known of a server that says nothing."""
    log = slot(path, system) / "events.jsonl"
    kept = [event for event in read_events(log) if event.source in (CLIENT, GLOBAL_SCHEDULER) or event.kind in LIFE]
    for event in kept:
        if event.kind is EventKind.INSTANCE_READY:
            event.details = {"role": "colocated", "is_opaque": True}
    log.write_bytes(b"".join(encode_event(event) for event in kept))


def test_a_report_of_a_silent_system(make_run: Callable[..., Path]) -> None:
    path = make_run()
    silence(path, "vllm_like")
    write_report(path)
    run = load_run(path)
    number = run.systems.index("vllm_like")
    rows = {row.heads[0]: row.cells[number].text for row in resource_table(run.pooled).rows}
    assert {text for title, text in rows.items() if title.startswith(("Busy time", "Utilisation", "Preemptions"))} == {
        DASH
    }
    assert rows["Makespan (s)"] != DASH
    fairness = {row.heads[0]: row.cells[number].text for row in arm_tables(run).differing.rows}
    assert fairness["KV memory (tokens)"] == DASH
    metrics = json.loads((path / "metrics.json").read_text())["systems"]["vllm_like"]
    assert metrics["resources"]["busy_s"] is None and metrics["metrics"]["overall"]["jct_s"]["mean"] > 0


def test_figures_say_that_it_is_not_told(make_run: Callable[..., Path]) -> None:
    path = make_run()
    silence(path, "vllm_like")
    results = load_run(path).results
    with drawing():
        bars, times = resource_bars(results, ""), timeline(results, "")
    assert bars is not None
    assert any("not told" in text.get_text() for text in bars.axes[0].texts)
    assert "not told" in [text.get_text() for legend in times.legends for text in legend.get_texts()]


def test_a_report_of_silent_systems_alone(make_run: Callable[..., Path]) -> None:
    path = make_run()
    for system in load_run(path).systems:
        silence(path, system)
    write_report(path)
    page = (path / "report.html").read_text()
    assert "What each instance did, and when" in page and "What the resource usage time was spent on" not in page
    assert not (path / "figures" / "resource_time.svg").exists()
