"""Whatever the workload, the memory and the policies: every request is served, once, in order, and nothing is lost.

`Bench.run` checks it: the life of every request, its tokens, the invariants of every scheduler, and by the checking
engine and link that every KV slot that is read holds what it should.
"""

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.bench import Bench
from tests.support.builders import request, sarathi_like, tetri, vllm_like
from tests.support.engine import CheckingFactory
from tetribench.control.route import LeastQueuedTokens, LeastRequests, RoundRobin
from tetribench.core.request import Request
from tetribench.core.sequence import Estimate
from tetribench.decode.admit import Greedy, ReserveDynamic, ReserveStatic
from tetribench.decode.preempt import Preemption
from tetribench.drive.loadgen import ClosedLoop, Loop, OpenLoop
from tetribench.kv.links import LinkSpeed
from tetribench.kv.transfer import Granularity
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import Imbalance, PowerOfTwo, RandomDispatch
from tetribench.prefill.order import FCFS, LJF, SJF
from tetribench.prefill.predict import NoisyOracle, NoPrediction, Oracle

pytestmark = pytest.mark.no_cover

MAX_TOKENS = 120

Served = tuple[list[Request], CheckingFactory]

profile = settings(max_examples=80, deadline=None, phases=[Phase.explicit, Phase.generate, Phase.shrink])

loops: st.SearchStrategy[Loop] = st.one_of(
    st.builds(OpenLoop), st.integers(1, 30).map(lambda concurrency: ClosedLoop(concurrency=concurrency))
)


@st.composite
def workloads(draw: st.DrawFn) -> list[Request]:
    """Up to 25 requests of up to 80 + 40 tokens, all at once or over half a second."""
    spread_s = draw(st.sampled_from([0.0, 2**-8]))
    sizes = st.tuples(st.integers(1, 80), st.integers(1, 40), st.integers(0, 128))
    rows = sorted(draw(st.lists(sizes, min_size=1, max_size=25)), key=lambda row: row[2])
    return [request(id, prompt, output, spread_s * at) for id, (prompt, output, at) in enumerate(rows)]


@st.composite
def memories(draw: st.DrawFn) -> CheckingFactory:
    """From just enough for the longest request to more than enough for all."""
    block_size = draw(st.sampled_from([1, 3, 4, 16]))
    num_spare = draw(st.sampled_from([0, 1, 4, 20, 3000]))
    num_blocks, num_layers = -(-MAX_TOKENS // block_size) + num_spare, draw(st.sampled_from([1, 4]))
    host_blocks = draw(st.sampled_from([1, 5, 20, 300]))
    return CheckingFactory(num_blocks, block_size, host_blocks=host_blocks, num_layers=num_layers)


@st.composite
def stopping(draw: st.DrawFn) -> Served:
    """A workload whose responses may stop before their length, and the memory that it runs on."""
    requests, factory = draw(workloads()), draw(memories())
    positions = draw(st.lists(st.integers(0, 45), min_size=len(requests), max_size=len(requests)))
    natural = [
        request(one.id, one.num_prompt_tokens, one.max_output_tokens, one.arrival_s, natural_stop=True)
        for one in requests
    ]
    stops = dict(enumerate(positions))
    return natural, CheckingFactory(
        factory.num_blocks(), factory.block_size, stops, factory.host_blocks, factory.num_layers
    )


@st.composite
def tetris(draw: st.DrawFn) -> dict[str, Any]:
    granularity, estimate = draw(st.sampled_from([1, 7, 25, 200])), draw(st.sampled_from(Estimate))
    return {
        "order": draw(st.sampled_from([FCFS, SJF, LJF]))(window=draw(st.integers(1, 20))),
        "chunk": Chunker(chunk_size=draw(st.integers(1, 100)), pad=draw(st.booleans())),
        "predict": draw(
            st.sampled_from(
                [
                    NoPrediction(limit_tokens=50),
                    Oracle(granularity=granularity),
                    NoisyOracle(granularity=granularity, accuracy=0.5),
                ]
            )
        ),
        "dispatch": draw(st.sampled_from([PowerOfTwo(estimate=estimate), RandomDispatch(), Imbalance()])),
        "granularity": draw(st.sampled_from(Granularity)),
        "admit": draw(st.sampled_from([Greedy(), ReserveStatic(estimate=estimate), ReserveDynamic(estimate=estimate)])),
        "max_num_seqs": draw(st.integers(1, 30)),
        "watermark": draw(st.sampled_from([0.0, 0.01, 0.3])),
        "preemption": draw(st.sampled_from(Preemption)),
        "recompute_chunk_size": draw(st.integers(1, 100)),
        "num_prefill": draw(st.integers(1, 3)),
        "num_decode": draw(st.integers(1, 3)),
        "route": draw(st.sampled_from([LeastQueuedTokens, LeastRequests, RoundRobin]))(),
        "link": LinkSpeed(bandwidth_bytes_per_s=draw(st.sampled_from([None, 1e4, 1e6]))),
        "seed": draw(st.integers(0, 5)),
        "report_period_s": draw(st.sampled_from([0.001, 0.1])),
        "broadcast_period_s": draw(st.sampled_from([0.003, 0.1])),
    }


@profile
@given(workloads(), memories(), tetris(), loops)
def test_tetri_serves_it(
    requests: list[Request], factory: CheckingFactory, changes: dict[str, Any], loop: Loop
) -> None:
    Bench(tetri(**changes), factory).run(requests, loop)


@profile
@given(stopping(), tetris(), loops)
def test_tetri_serves_it_when_responses_stop_by_themselves(served: Served, changes: dict[str, Any], loop: Loop) -> None:
    requests, factory = served
    Bench(tetri(**changes), factory).run(requests, loop)


@profile
@given(
    workloads(),
    memories(),
    st.integers(1, 3),
    st.fixed_dictionaries(
        {
            "max_num_seqs": st.integers(1, 30),
            "max_num_batched_tokens": st.integers(1, 200),
            "watermark": st.sampled_from([0.0, 0.01, 0.3]),
        }
    ),
    loops,
)
def test_vllm_like_serves_it(
    requests: list[Request], factory: CheckingFactory, num_instances: int, scheduler: dict[str, Any], loop: Loop
) -> None:
    Bench(vllm_like(num_instances, **scheduler), factory).run(requests, loop)


mixing = st.tuples(st.integers(1, 30), st.integers(0, 170), st.sampled_from([0.0, 0.01, 0.3])).map(
    lambda drawn: {"max_num_seqs": drawn[0], "max_num_batched_tokens": drawn[0] + drawn[1], "watermark": drawn[2]}
)


@profile
@given(workloads(), memories(), st.integers(1, 3), mixing, loops)
def test_sarathi_like_serves_it(
    requests: list[Request], factory: CheckingFactory, num_instances: int, scheduler: dict[str, Any], loop: Loop
) -> None:
    Bench(sarathi_like(num_instances, **scheduler), factory).run(requests, loop)


@profile
@given(stopping(), st.integers(1, 3), mixing, loops)
def test_sarathi_like_serves_it_when_responses_stop_by_themselves(
    served: Served, num_instances: int, scheduler: dict[str, Any], loop: Loop
) -> None:
    requests, factory = served
    Bench(sarathi_like(num_instances, **scheduler), factory).run(requests, loop)
