"""Traffic that turns: one workload, then another, as a day's mix of tasks changes."""

from dataclasses import replace

from tetribench.workload.checks import check_positive
from tetribench.workload.request_set import RequestSet
from tetribench.workload.spec import Tokenizer, Workload


class ShiftWorkload:
    """The requests of `before`, then those of `after`, whose time 0 is `shift_s` seconds after the first's.

    Each half keeps its own arrivals, and the halves are drawn from different seeds.
    """

    def __init__(self, *, name: str, before: Workload, after: Workload, shift_s: float) -> None:
        check_positive("workload.shift_s", shift_s)
        self.name = name
        self.before = before
        self.after = after
        self.shift_s = shift_s

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        before, after = self.before.draw(2 * seed, tokenizer), self.after.draw(2 * seed + 1, tokenizer)
        later = [replace(one, arrival_s=one.arrival_s + self.shift_s) for one in after.requests]
        in_order = sorted([*before.requests, *later], key=lambda one: one.arrival_s)
        requests = [replace(one, id=index) for index, one in enumerate(in_order)]
        return RequestSet(
            name=self.name,
            requests=requests,
            num_cut=before.num_cut + after.num_cut,
            num_skipped=before.num_skipped + after.num_skipped,
        )
