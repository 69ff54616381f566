"""What one scheduling decision costs on one core: `make bench`."""

from collections import deque

from pytest_benchmark.fixture import BenchmarkFixture

from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Submit
from tetribench.core.request import Request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.decode.admit import KVView, ReserveDynamic, ReserveStatic
from tetribench.kv.blocks import BlockAllocator
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.prefill.order import SJF

RNG = generator(0, "benchmarks")


def request(number: int) -> Request:
    num_prompt, num_output = RNG.randint(1, 1000), RNG.randint(1, 1000)
    return Request(id=number, arrival_s=0.0, num_prompt_tokens=num_prompt, max_output_tokens=num_output)


def sequence(number: int, *, num_outputs: int = 0) -> Sequence:
    made = Sequence(request(number), LengthRange(200, 400))
    made.output_ids = [0] * num_outputs
    made.block_ids = [0] * (-(-made.num_tokens // 16))
    return made


def test_order_a_window_of_128(benchmark: BenchmarkFixture) -> None:
    submitted = [Submit(request(number)) for number in range(128)]
    order = SJF(window=128)
    group = benchmark(lambda: order.next_group(deque(submitted)))
    assert len(group) == 128


def test_cut_a_chunk_of_512(benchmark: BenchmarkFixture) -> None:
    requests = [request(number) for number in range(64)]

    def fresh() -> tuple[tuple[deque[Sequence], BlockAllocator], dict[str, object]]:
        queue = deque(Sequence(one, LengthRange(0, 200)) for one in requests)
        return (queue, BlockAllocator(num_blocks=4096, block_size=16)), {}

    batch = benchmark.pedantic(Chunker(chunk_size=512).cut, setup=fresh, rounds=500)  # type: ignore[no-untyped-call]
    assert batch is not None and batch.num_prefill_tokens == 512


def test_dispatch_among_1000_instances(benchmark: BenchmarkFixture) -> None:
    loads = {
        f"decode-{index}": InstanceLoad(time_s=0.0, num_total_tokens=9999, num_free_tokens=RNG.randint(0, 9999))
        for index in range(1000)
    }
    one, predicted, policy = request(0), LengthRange(200, 400), PowerOfTwo()
    choice = benchmark(lambda: policy.choose(one, predicted, loads, RNG))
    assert len(choice.candidates) == 2


def admission(benchmark: BenchmarkFixture, policy: ReserveDynamic | ReserveStatic) -> None:
    members = [sequence(number, num_outputs=RNG.randint(1, 400)) for number in range(256)]
    candidate, view = sequence(999), KVView(block_size=16, num_free_tokens=100_000)
    assert benchmark(lambda: policy.admits(candidate, members, view))


def test_admit_into_256_reserve_dynamic(benchmark: BenchmarkFixture) -> None:
    admission(benchmark, ReserveDynamic())


def test_admit_into_256_reserve_static(benchmark: BenchmarkFixture) -> None:
    admission(benchmark, ReserveStatic())
