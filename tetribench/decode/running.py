"""The running batch: sequences that hold memory and produce a token each iteration (continuous batching)."""

from collections.abc import Sequence as SequenceOf

from tetribench.core.messages import TokenOutput
from tetribench.core.sequence import Sequence
from tetribench.kv.blocks import BlockAllocator


class RunningBatch:
    """Members in the order of admission. Decode instances and colocated ones run the same batch."""

    def __init__(self, kv: BlockAllocator) -> None:
        self.members: list[Sequence] = []
        self._kv = kv

    def __len__(self) -> int:
        return len(self.members)

    def grow(self) -> list[Sequence]:
        """Give every member room for the token it is about to compute; returns those preempted for it.

        When memory runs out the member admitted last loses its blocks and is to be recomputed (vLLM's policy: whoever
        came first is served first). A member may preempt itself when it is the last.
        """
        preempted: list[Sequence] = []
        index = 0
        while index < len(self.members):
            member = self.members[index]
            if self._kv.can_hold(member, member.num_tokens):
                self._kv.extend(member, member.num_tokens)
                index += 1
            else:
                victim = self.members.pop()
                self._kv.release(victim)
                preempted.append(victim)
        return preempted

    def take(
        self, ran: SequenceOf[Sequence], tokens: dict[int, int], stop_token_ids: frozenset[int]
    ) -> list[TokenOutput]:
        """Add the iteration's `tokens` (by request id) to the members among those that `ran` in it, in their order.

        Members whose response ends leave and give back their memory. Members that joined meanwhile have no token yet,
        also where an earlier attempt of the same request, which was dropped, was in the iteration.
        """
        outputs, staying = [], []
        have_run = set(ran)
        for member in self.members:
            if member not in have_run:
                staying.append(member)
                continue
            token_id = tokens[member.request.id]
            member.num_computed += 1
            is_last = member.append(token_id, stop_token_ids)
            outputs.append(
                TokenOutput(member.request.id, member.attempt, len(member.output_ids) - 1, token_id, is_last)
            )
            if is_last:
                self._kv.release(member)
            else:
                staying.append(member)
        self.members = staying
        return outputs
