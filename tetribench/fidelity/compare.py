"""One recorded run against its predictions: the rows of the experiment."""

from collections.abc import Sequence

from tetribench.calibrate.batches import recorded_batches
from tetribench.calibrate.watch import calibrated_in
from tetribench.core.events import Event, EventKind
from tetribench.engine.cost_engine import CostModelFactory
from tetribench.engine.cost_model import CostModel
from tetribench.experiment import Setup
from tetribench.fidelity.recording import Recording
from tetribench.fidelity.replay import Pace, Record, replay
from tetribench.fidelity.rows import (
    MEASURED,
    OVERHEADS,
    STEPS,
    VIRTUAL,
    Row,
    machine_rows,
    predicted_seconds,
    step_rows,
    value_rows,
)
from tetribench.fidelity.twin import simulate_twin
from tetribench.metrics.compare import measure
from tetribench.workload.request_set import RequestSet


def compare(setup: Setup, requests: RequestSet, recording: Recording) -> list[Row]:
    """`setup` is that of virtual time; what it has virtual time do is done here."""
    engine = setup.engine
    assert isinstance(engine, CostModelFactory), "virtual time has no other engine"
    batches = recorded_batches(recording.events)
    hardware, cost = engine.hardware, CostModel(setup.model.shape(), engine.hardware)
    predicted_s = predicted_seconds(batches, cost, hardware)
    twin = simulate_twin(setup, recording.key.system, requests, recording.events)
    record = Record.of(recording.events, batches)
    steps, overheads = _paces(record.pace(), predicted_s, twin, hardware.per_iteration_s, hardware.message_s)
    runs = {
        MEASURED: recording.events,
        STEPS: replay(record, steps),
        OVERHEADS: replay(record, overheads),
        VIRTUAL: twin,
    }
    summaries = {source: measure(recording.key.system, events, setup.slo).summary for source, events in runs.items()}
    return [
        *value_rows(summaries),
        *machine_rows(recording.machine, recording.num_attempts, calibrated_in(hardware)),
        *step_rows(batches, predicted_s, hardware),
    ]


def _paces(
    recorded: Pace, predicted_s: Sequence[float], twin: Sequence[Event], per_iteration_s: float, message_s: float
) -> tuple[Pace, Pace]:
    """With predicted steps and everything else as recorded; and with everything as predicted, the handovers as they
    were in virtual time."""
    steps = Pace(predicted_s, recorded.waits_s, recorded.handover_s, recorded.delivery_s, recorded.inbox_s)
    overheads = Pace(
        predicted_s,
        [per_iteration_s] * len(predicted_s),
        _handovers(twin),
        {id: [message_s] * len(delays_s) for id, delays_s in recorded.delivery_s.items()},
        message_s,
    )
    return steps, overheads


def _handovers(events: Sequence[Event]) -> dict[int, float]:
    """By request the time from the end of its prefill until another instance could decode it."""
    first: dict[EventKind, dict[int, float]] = {EventKind.PREFILL_DONE: {}, EventKind.ADMITTED: {}}
    for event in sorted(events, key=lambda event: event.time_s):
        if event.kind in first:
            first[event.kind].setdefault(event.requests[0], event.time_s)
    done_s, admitted_s = first[EventKind.PREFILL_DONE], first[EventKind.ADMITTED]
    return {id: max(time_s - done_s[id], 0.0) for id, time_s in admitted_s.items()}
