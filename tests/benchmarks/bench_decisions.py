"""What one scheduling decision costs on one core: `make bench`."""

from collections import deque
from collections.abc import Sequence as SequenceOf

from pytest_benchmark.fixture import BenchmarkFixture

from tetribench.core.load import InstanceLoad
from tetribench.core.messages import Arrived, LoadBroadcast, Reserve, Submit
from tetribench.core.request import Request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.decode.admit import Admission, Greedy, KVView, ReserveDynamic, ReserveStatic
from tetribench.decode.scheduler import DecodePolicies, DecodeScheduler
from tetribench.engine.base import EngineInfo
from tetribench.kv.blocks import BlockAllocator
from tetribench.prefill.chunk import Chunker
from tetribench.prefill.dispatch import PowerOfTwo
from tetribench.prefill.order import SJF
from tetribench.prefill.predict import Oracle
from tetribench.prefill.scheduler import PrefillPolicies, PrefillScheduler

RNG = generator(0, "benchmarks")


def request(number: int) -> Request:
    num_prompt, num_output = RNG.randint(1, 1000), RNG.randint(1, 1000)
    return Request(id=number, arrival_s=0.0, num_prompt_tokens=num_prompt, max_output_tokens=num_output)


def sequence(number: int, *, num_outputs: int = 0) -> Sequence:
    made = Sequence(request(number), LengthRange(200, 400))
    made.output_ids = [0] * num_outputs
    made.num_computed = made.num_tokens - 1 if num_outputs else 0
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


def admission(benchmark: BenchmarkFixture, policy: Admission) -> None:
    members = [sequence(number, num_outputs=RNG.randint(1, 400)) for number in range(256)]
    candidate, view = sequence(999), KVView(block_size=16, num_free_tokens=100_000)
    assert benchmark(lambda: policy.admits(candidate, members, view))


def test_admit_into_256_greedy(benchmark: BenchmarkFixture) -> None:
    admission(benchmark, Greedy())


def test_admit_into_256_reserve_dynamic(benchmark: BenchmarkFixture) -> None:
    admission(benchmark, ReserveDynamic())


def test_admit_into_256_reserve_static(benchmark: BenchmarkFixture) -> None:
    admission(benchmark, ReserveStatic())


INFO = EngineInfo(
    num_blocks=100_000,
    block_size=16,
    max_context_tokens=10**6,
    block_bytes=1,
    device="none",
    dtype="none",
    num_parameters=1,
    attention="none",
)


class Refusing(ReserveDynamic):
    """Looks as long as the policy does and then says no."""

    def admits(self, candidate: Sequence, members: SequenceOf[Sequence], kv: KVView) -> bool:
        return super().admits(candidate, members, kv) and not members


def decoding_256() -> DecodeScheduler:
    """256 members, and a request that the policy is asked about, in vain, at the end of every iteration."""
    policies = DecodePolicies(admit=Greedy(), max_num_seqs=512)
    made = policies.build("decode-0", INFO)
    for number in range(256):
        one = Request(id=number, arrival_s=0.0, num_prompt_tokens=RNG.randint(1, 1000), max_output_tokens=10**6)
        made.receive(Reserve("prefill-0", number, one, 1, [], LengthRange(200, 400)), 0.0)
        made.receive(Arrived("prefill-0", number, 0), 0.0)
    policies.admit = Refusing()
    made.receive(Reserve("prefill-0", 999, request(999), 1, [], LengthRange(200, 400)), 0.0)
    return made


def test_all_scheduling_of_a_decode_iteration_of_256(benchmark: BenchmarkFixture) -> None:
    made, tokens = decoding_256(), dict.fromkeys(range(256), 0)

    def iteration() -> None:
        batch = made.next_batch(0.0)
        assert batch is not None
        made.complete(batch, tokens, 0.0)
        made.outbox.outputs.clear()

    benchmark.pedantic(iteration, rounds=500)  # type: ignore[no-untyped-call]
    assert made.load(0.0).num_running == 256 and made.load(0.0).num_waiting == 1


def test_load_of_256_decodes(benchmark: BenchmarkFixture) -> None:
    made = decoding_256()
    assert benchmark(lambda: made.load(0.0)).num_running == 256


def prefilling_1000() -> PrefillScheduler:
    """1,000 prompts, 128 or more of which are scheduled."""
    policies = PrefillPolicies(
        order=SJF(window=128), chunk=Chunker(chunk_size=512), predict=Oracle(), dispatch=PowerOfTwo()
    )
    made = policies.build("prefill-0", INFO)
    free = InstanceLoad(time_s=0.0, num_total_tokens=10**6, num_free_tokens=10**6)
    made.receive(LoadBroadcast({"decode-0": free, "decode-1": free}), 0.0)
    for number in range(1000):
        made.receive(Submit(request(number)), 0.0)
    while group := made.next_prediction():
        made.predicted({one.id: LengthRange(0, 200) for one in group}, 0.0, 0.0)
    return made


def test_all_scheduling_of_a_prefill_iteration_with_1000_queued(benchmark: BenchmarkFixture) -> None:
    """The first iteration of a window also orders it, and is left out."""

    def fresh() -> tuple[tuple[PrefillScheduler], dict[str, object]]:
        made = prefilling_1000()
        batch = made.next_batch(0.0)
        assert batch is not None
        made.complete(batch, {chunk.sequence.request.id: 0 for chunk in batch.prefill if chunk.yields_token}, 0.0)
        return (made,), {}

    def iteration(made: PrefillScheduler) -> int:
        batch = made.next_batch(0.0)
        assert batch is not None
        made.complete(batch, {chunk.sequence.request.id: 0 for chunk in batch.prefill if chunk.yields_token}, 0.0)
        return batch.num_prefill_tokens

    assert benchmark.pedantic(iteration, setup=fresh, rounds=50) == 512  # type: ignore[no-untyped-call]
