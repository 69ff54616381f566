"""The running batch: sequences that hold memory and produce a token each iteration (continuous batching)."""

from collections import Counter
from collections.abc import Callable, Set
from itertools import accumulate

from tetribench.core.messages import TokenOutput
from tetribench.core.sequence import Sequence
from tetribench.core.units import ceil_div
from tetribench.kv.blocks import BlockAllocator


class RunningBatch:
    """Members in the order of admission. Decode instances and colocated ones run the same batch.

    On a colocated instance a member may still be in its prefill: it has the blocks for all of its tokens.

    `evict` takes a preempted member's memory; by default its KV is dropped.
    """

    def __init__(self, kv: BlockAllocator, evict: Callable[[Sequence], None] | None = None) -> None:
        self.members: list[Sequence] = []
        self._kv = kv
        self._evict = kv.release if evict is None else evict

    def __len__(self) -> int:
        return len(self.members)

    def grow(self) -> list[Sequence]:
        """Give every member room for the token it is about to compute; returns those preempted for it.

        When memory runs out the member admitted last loses its blocks (vLLM's policy: whoever came first is served
        first). A member may preempt itself when it is the last. Blocks that are granted to a request whose KV is still
        on its way are left alone, however late it was admitted: another instance is writing into them.
        """
        block_size = self._kv.block_size
        short = [  # without a call for each member: in most iterations most members need nothing
            index
            for index, member in enumerate(self.members)
            if member.num_computed >= len(member.block_ids) * block_size
        ]
        preempted: list[Sequence] = []
        for index in short:
            while index < len(self.members):
                member = self.members[index]
                if self._kv.can_hold(member, member.num_tokens):
                    self._kv.extend(member, member.num_tokens)
                    break
                victim = self.members.pop()
                self._evict(victim)
                preempted.append(victim)
        return preempted

    def num_steady_iterations(self) -> int:
        """For how many iterations, with the one in flight, no member ends and the blocks suffice."""
        num_iterations = min([one.request.max_output_tokens - len(one.output_ids) for one in self.members])
        block_size, num_free = self._kv.block_size, self._kv.num_free
        if len(self.members) * ceil_div(num_iterations - 1, block_size) <= num_free:
            return num_iterations  # each member needs at most so many
        num_short = Counter([len(one.block_ids) * block_size - one.num_computed - 1 for one in self.members])
        for done in range(num_iterations - 1):
            num_free -= num_short[done % block_size]
            if num_free < 0:
                return done + 1
        return num_iterations

    def advance(self, num_iterations: int) -> list[int]:
        """Give every member as many tokens 0, and room for the one that then follows; nobody ends.

        Returns the blocks in use in each of the iterations that have begun.
        """
        kv, block_size, token_ids = self._kv, self._kv.block_size, [0] * num_iterations
        num_taken = [0] * num_iterations
        num_used = kv.num_used
        for member in self.members:
            member.output_ids += token_ids
            member.num_computed = num_computed = member.num_computed + num_iterations
            num_spare = len(member.block_ids) * block_size - num_computed - 1
            if num_spare < 0:
                for iteration in range(num_spare + num_iterations, num_iterations, block_size):
                    num_taken[iteration] += 1
                kv.extend(member, num_computed + 1)
        return [num_used + num for num in accumulate(num_taken)]

    def take(self, ran: Set[Sequence], tokens: dict[int, int], stop_token_ids: frozenset[int]) -> list[TokenOutput]:
        """Add the iteration's `tokens` (by request id) to the members among those that `ran` in it, in their order.

        Members whose response ends leave and give back their memory. Members that joined meanwhile have no token yet,
        also where an earlier attempt of the same request, which was dropped, was in the iteration; nor have those whose
        prompt is not done.
        """
        outputs, ended = list[TokenOutput](), set[Sequence]()
        for member in self.members:
            token_id = tokens.get(member.request.id) if member in ran else None
            if token_id is None:
                continue
            request, index = member.request, len(member.output_ids)
            member.num_computed = request.num_prompt_tokens + index
            is_last = member.append(token_id, stop_token_ids)
            outputs.append(TokenOutput(request.id, member.attempt, index, token_id, is_last))
            if is_last:
                self._kv.release(member)
                ended.add(member)
        if ended:
            self.members = [member for member in self.members if member not in ended]
        return outputs
