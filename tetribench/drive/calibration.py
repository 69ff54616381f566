"""How far the client can be believed: before a run it measures a server whose times are known, under the same load."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from itertools import cycle
from math import ceil
from pathlib import Path

from tetribench.core.events import EventLog
from tetribench.core.request import Request
from tetribench.drive.loadgen import ClosedLoop, Loop, OpenLoop
from tetribench.drive.null_server import STEP_S, NullEngineFactory, NullServer
from tetribench.drive.session import serve
from tetribench.instance.runtime import Runtime
from tetribench.metrics.client_error import ClientError, client_error
from tetribench.metrics.log import EventWriter, read_columns

ENOUGH_REQUESTS = 100
"""What a p99 needs."""

MAX_ROUNDS = 5
"""So often a load of fewer requests is repeated."""

STALL_TIMEOUT_S = 60.0


def calibrate(
    requests: SequenceOf[Request],
    loop: Loop,
    runtime: Runtime,
    *,
    num_instances: int,
    load_s: float,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda num_ended, num_tokens: None,
) -> ClientError:
    """Serve about `load_s` seconds of `requests` from `num_instances` null instances, and compare.

    Events and what the processes print are kept in `folder`. Raises what a run raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, engine = folder / "events.jsonl", NullEngineFactory()
    plan = NullServer(num_instances=num_instances).plan(engine)
    with path.open("wb") as file:
        writer = EventWriter(file)
        load, log = planned(requests, loop, load_s), EventLog(writer.write)
        serve(
            *(plan, load, loop, runtime, log, folder / "logs"),
            stall_timeout_s=STALL_TIMEOUT_S,
            on_progress=on_progress,
        )
        writer.flush()
    return client_error(read_columns(path))


def planned(requests: SequenceOf[Request], loop: Loop, load_s: float) -> list[Request]:
    """About `load_s` seconds of the load that `requests` are, for a server that makes a token every `STEP_S`.

    Arrivals and prompts are as they are; responses are all shortened by one factor, if at all, so that the longest
    ends in time. Where the whole takes longer it is the stretch in which most requests arrive; where it is few
    requests it is repeated.
    """
    match loop:
        case ClosedLoop():
            found = _in_turn(requests, loop.concurrency, load_s)
        case OpenLoop():
            found = _in_time(requests, load_s)
    return [replace(request, id=id) for id, request in enumerate(found)]


def _in_time(requests: SequenceOf[Request], load_s: float) -> Iterator[Request]:
    """Half of a round is for arrivals, the other half for the responses to the last of them."""
    num_rounds = min(ceil(ENOUGH_REQUESTS / len(requests)), MAX_ROUNDS)
    round_s = load_s / num_rounds
    arrivals_s = [request.arrival_s for request in requests]
    ends = [bisect_left(arrivals_s, arrival_s + round_s / 2) for arrival_s in arrivals_s]
    start = max(range(len(requests)), key=lambda index: ends[index] - index)
    chosen = requests[start : ends[start]]
    for number in range(num_rounds):
        for request in _shortened(chosen, round_s / 2):
            yield replace(request, arrival_s=request.arrival_s - arrivals_s[start] + number * round_s)


def _in_turn(requests: SequenceOf[Request], concurrency: int, load_s: float) -> Iterator[Request]:
    """As many as so many streams serve one after the other, beginning again where there are no more."""
    left_s = concurrency * load_s
    for request in cycle(_shortened(requests, load_s / 2)):
        left_s -= (request.max_output_tokens + 1) * STEP_S
        yield request
        if left_s <= 0:
            return


def _shortened(requests: SequenceOf[Request], seconds: float) -> list[Request]:
    """The longest response takes at most so long."""
    num_tokens = max(request.max_output_tokens for request in requests)
    scale = min(seconds / STEP_S / num_tokens, 1.0)
    return [replace(one, max_output_tokens=max(int(one.max_output_tokens * scale), 1)) for one in requests]
