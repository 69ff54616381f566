"""Two lives with round numbers, from which the expected values in the tests are computed by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from tetribench.core.events import CLIENT, GLOBAL_SCHEDULER, Event, EventKind

Make = Callable[..., Event]


def _event(time_s: float, kind: str, source: str = CLIENT, *requests: int, **details: Any) -> Event:
    return Event(time_s, EventKind(kind), source, requests, details)


def _started(name: str, role: str, num_blocks: int) -> list[Event]:
    facts = {"role": role, "num_blocks": num_blocks, "block_size": 16, "device": "cpu", "dtype": "float32"}
    return [_event(-2.0, "instance_started", name, role=role), _event(-1.0, "instance_ready", name, **facts)]


def _iteration(name: str, started_s: float, ended_s: float, *counts: int) -> Event:
    names = ("num_prefill_tokens", "num_decode_tokens", "num_used_blocks")
    details = dict(zip(names, counts, strict=True))
    return _event(ended_s, "iteration", name, started_s=started_s, num_swapped_bytes=0, **details)


@pytest.fixture
def event() -> Make:
    """`event(time_s, kind, source, *requests, **details)`."""
    return _event


@pytest.fixture
def arrival() -> Make:
    """`arrival(time_s, request, label)`: a prompt of 100 tokens, at most 50 in return."""

    def make(time_s: float, request: int, label: str = "LPLD") -> Event:
        lengths = {"num_prompt_tokens": 100, "max_output_tokens": 50}
        return _event(time_s, "arrived", CLIENT, request, label=label, **lengths)

    return make


@pytest.fixture
def disaggregated(arrival: Make) -> list[Event]:
    """Request 1: two chunks, each pushed on its own, four tokens; request 2: one token, so never handed over."""
    return [
        *_started("p0", "prefill", 100),
        *_started("d0", "decode", 200),
        arrival(1.0, 1, "LPLD"),
        _event(1.01, "sent", CLIENT, 1),
        _event(1.03, "routed", GLOBAL_SCHEDULER, 1, to="p0"),
        _event(1.10, "prefill_started", "p0", 1),
        _event(1.20, "predicted", "p0", 1, low=0, high=200, duration_s=0.1),
        _iteration("p0", 1.10, 1.30, 64, 0, 10),
        _event(1.30, "dispatched", "p0", 1, to="d0", low=0, high=200, candidates={"d0": [3200, 0, 0, 0.3]}),
        _event(1.35, "reserved", "d0", 1, num_blocks=7),
        _event(1.36, "transfer_started", "p0", 1),
        _iteration("p0", 1.30, 1.40, 36, 0, 20),
        _event(1.40, "prefill_done", "p0", 1),
        _event(1.40, "transfer", "p0", 1, started_s=1.36, num_bytes=400, to="d0"),
        _event(1.45, "first_token", CLIENT, 1),
        _event(1.48, "transfer", "p0", 1, started_s=1.42, num_bytes=600, to="d0"),
        _event(1.48, "transfer_done", "p0", 1, num_bytes=1000, busy_s=0.10),
        _event(1.60, "admitted", "d0", 1),
        _iteration("d0", 1.60, 2.00, 0, 1, 50),
        _event(1.70, "token", CLIENT, 1),
        _event(1.80, "token", CLIENT, 1),
        _event(2.00, "token", CLIENT, 1),
        _event(2.00, "finished", CLIENT, 1, num_output_tokens=4),
        arrival(1.0, 2, "HPLD"),
        _event(1.0, "sent", CLIENT, 2),
        _event(1.0, "routed", GLOBAL_SCHEDULER, 2, to="p0"),
        _event(1.45, "predicted", "p0", 2, low=200, high=400, duration_s=0.1),
        _event(1.50, "prefill_started", "p0", 2),
        _iteration("p0", 1.50, 2.50, 100, 0, 40),
        _event(2.50, "prefill_done", "p0", 2),
        _event(3.00, "first_token", CLIENT, 2),
        _event(3.00, "finished", CLIENT, 2, num_output_tokens=1),
        _event(4.0, "instance_stopped", "p0"),
        _event(4.0, "instance_stopped", "d0"),
    ]


@pytest.fixture
def opaque(arrival: Make) -> list[Event]:
    """Two servers that tell nothing of what they do; request 1 gets two tokens, 2 is refused."""
    servers = [
        each
        for name in ("c0", "c1")
        for each in (
            _event(-2.0, "instance_started", name, role="colocated"),
            _event(-1.0, "instance_ready", name, role="colocated", is_opaque=True, device="cpu"),
        )
    ]
    return [
        *servers,
        arrival(0.0, 1),
        _event(0.0, "sent", CLIENT, 1, num_prompt_ids=100),
        _event(0.0, "routed", GLOBAL_SCHEDULER, 1, to="c0"),
        arrival(0.5, 2, "HPLD"),
        _event(0.5, "sent", CLIENT, 2, num_prompt_ids=100),
        _event(0.5, "routed", GLOBAL_SCHEDULER, 2, to="c1"),
        _event(0.6, "failed", CLIENT, 2, reason="HTTP 429"),
        _event(1.0, "first_token", CLIENT, 1),
        _event(3.0, "token", CLIENT, 1),
        _event(3.0, "finished", CLIENT, 1, num_output_tokens=2),
        *(_event(5.0, "instance_stopped", name) for name in ("c0", "c1")),
    ]


@pytest.fixture
def colocated(arrival: Make) -> list[Event]:
    """Request 1 is admitted before its prefill, preempted, and computed again; 2 fails and 3 is cut off."""
    return [
        *_started("c0", "colocated", 100),
        arrival(0.0, 1),
        _event(0.0, "sent", CLIENT, 1),
        _event(0.1, "routed", GLOBAL_SCHEDULER, 1, to="c0"),
        _event(0.5, "admitted", "c0", 1),
        _event(0.5, "prefill_started", "c0", 1),
        _iteration("c0", 0.5, 1.0, 100, 0, 50),
        _event(1.0, "prefill_done", "c0", 1),
        _event(1.0, "first_token", CLIENT, 1),
        arrival(1.0, 2),
        _event(1.0, "sent", CLIENT, 2),
        arrival(1.2, 3),
        _iteration("c0", 1.0, 1.5, 0, 1, 100),
        _event(1.5, "token", CLIENT, 1),
        _event(1.5, "preempted", "c0", 1, how="recompute", num_tokens=102, num_bytes=0),
        _event(2.0, "admitted", "c0", 1),
        _event(2.0, "prefill_started", "c0", 1),
        _iteration("c0", 2.0, 3.0, 102, 1, 75),
        _event(3.0, "prefill_done", "c0", 1),
        _event(2.9, "first_token", CLIENT, 3),
        _event(3.0, "token", CLIENT, 1, 3),
        _event(4.0, "finished", CLIENT, 1, num_output_tokens=3),
        _event(5.0, "failed", CLIENT, 2, reason="too long"),
    ]
