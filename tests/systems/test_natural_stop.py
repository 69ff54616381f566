import pytest

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.engine import STOP_TOKEN, CheckingFactory, token
from tetribench.core.events import EventKind
from tetribench.core.request import Request
from tetribench.kv.links import LinkSpeed
from tetribench.kv.transfer import Granularity
from tetribench.systems.base import System

SYSTEMS = [tetri(), tetri(granularity=Granularity.request), vllm_like(), sarathi_like()]


def natural(id: int, prompt: int = 40, output: int = 10) -> Request:
    return request(id, prompt, output, natural_stop=True)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("position", [0, 1, 2, 8, 9, 10])
def test_a_response_ends_with_its_stop_token(system: System, position: int) -> None:
    bench = Bench(system, CheckingFactory(stops={0: position})).run([natural(0)])
    expected = [token(0, index) for index in range(min(position, 10))] + [STOP_TOKEN] * (position < 10)
    assert bench.client.outputs[0] == expected


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_forced_response_goes_on_past_a_stop_token(system: System) -> None:
    bench = Bench(system, CheckingFactory(stops={0: 0, 1: 3})).run([request(0, 40, 10), request(1, 40, 10)])
    assert [len(output) for output in bench.client.outputs.values()] == [10, 10]


@pytest.mark.parametrize("granularity", Granularity)
def test_memory_of_responses_that_stop_at_once_serves_those_that_wait(granularity: Granularity) -> None:
    """Half of the responses end with their first token, on memory for two requests a side."""
    stops = dict.fromkeys(range(0, 12, 2), 0)
    bench = Bench(tetri(granularity=granularity), CheckingFactory(num_blocks=8, block_size=16, stops=stops))
    bench.run([natural(id) for id in range(12)])
    assert set(bench.times(EventKind.ADMITTED)) == set(range(1, 12, 2))


def test_a_push_in_flight_when_a_response_stops_is_let_end_on_a_busy_system() -> None:
    """The link takes 1.6 s a block, the prompt 10 ms; the next request keeps the system going meanwhile."""
    system = tetri(link=LinkSpeed(bandwidth_bytes_per_s=1000.0))
    bench = Bench(system, CheckingFactory(stops={0: 0})).run([natural(0, prompt=80), natural(1)])
    assert len(bench.client.outputs[0]) == 1 and len(bench.client.outputs[1]) == 10


def test_a_push_in_flight_when_the_last_request_stops_leaves_nothing_behind() -> None:
    """As before, but nobody else is there: the run ends while blocks on both sides are still being copied."""
    system = tetri(link=LinkSpeed(bandwidth_bytes_per_s=1000.0))
    Bench(system, CheckingFactory(stops={0: 0})).run([natural(0, prompt=80)])
