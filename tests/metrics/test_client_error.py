"""What the client adds, on logs whose delays are chosen by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from tetribench.core.events import Event
from tetribench.metrics.client_error import client_error, rate_per_s

Make = Callable[..., Event]


def life(event: Make, arrival: Make, request: int, start_s: float, delays_s: list[float], late_s: float) -> list[Event]:
    """Sent `late_s` after `start_s`, received 1 s later, a token every 2 s, each delivered after its own delay."""
    received_s = start_s + late_s + 1.0
    ends_s = [received_s + 2.0 * number for number in range(1, len(delays_s) + 1)]
    deliveries_s = [end_s + delay_s for end_s, delay_s in zip(ends_s, delays_s, strict=True)]
    sizes = {"num_prefill_tokens": 0, "num_decode_tokens": 1, "num_used_blocks": 0, "num_swapped_bytes": 0}
    return [
        arrival(start_s, request),
        event(start_s + late_s, "sent", "client", request),
        event(received_s, "prefill_started", "null", request),
        event(ends_s[0], "prefill_done", "null", request),
        *[event(end_s, "iteration", "null", request, started_s=end_s - 2.0, **sizes) for end_s in ends_s],
        event(deliveries_s[0], "first_token", "client", request),
        *[event(delivery_s, "token", "client", request) for delivery_s in deliveries_s[1:]],
        event(deliveries_s[-1], "finished", "client", request, num_output_tokens=len(delays_s)),
    ]


def test_every_delay_between_client_and_server_is_found(event: Make, arrival: Make) -> None:
    """TTFT: 0.5 late, 1 on the way, 0.25 back. The gaps: 2.5 and 2 where they were 2."""
    events = [
        *life(event, arrival, 1, 0.0, [0.25, 0.75, 0.75], late_s=0.5),
        *life(event, arrival, 2, 4.0, [0.25, 0.75, 0.75], late_s=0.5),
    ]
    error = client_error(events)
    assert (error.ttft.mean_s, error.ttft.p99_s, error.ttft.num_samples) == (1.75, None, 2)
    assert (error.itl.mean_s, error.itl.num_samples) == (0.25, 4)
    assert (error.asked_per_s, error.delivered_per_s) == (0.25, 0.25)
    assert error.mean_send_delay_s == error.max_send_delay_s == 0.5
    assert (error.num_requests, error.num_streams) == (2, 2)
    assert error.tokens_per_s == pytest.approx(6 / (4.0 + 1.0 + 6.0 + 0.75))


def test_a_tail_of_the_clients_own_shows_in_the_p99(event: Make, arrival: Make) -> None:
    late = [5.0 if number < 4 else 0.0 for number in range(100)]
    events = [one for id in range(100) for one in life(event, arrival, id, 0.0, [0.0], late_s=late[id])]
    error = client_error(events)
    assert error.ttft.p99_s == pytest.approx(6.0) and error.ttft.mean_s == pytest.approx(1.2)
    assert error.asked_per_s is None and error.delivered_per_s == pytest.approx(99 / 5.0)
    assert (error.itl.mean_s, error.itl.p99_s, error.itl.num_samples) == (None, None, 0)


def test_a_request_that_did_not_end_leaves_nothing_to_say(event: Make, arrival: Make) -> None:
    events = [*life(event, arrival, 1, 0.0, [0.0], late_s=0.0), arrival(1.0, 2)]
    with pytest.raises(ValueError, match="of 2 requests to the null server 1 did not end well"):
        client_error(events)


def test_a_rate_needs_a_span() -> None:
    assert rate_per_s(np.array([3.0, 1.0, 2.0])) == 1.0
    assert rate_per_s(np.array([2.0, 2.0])) is None
    assert rate_per_s(np.array([])) is None
