"""How often everything is repeated, and in which order: so that what drifts, drifts for all systems alike."""

from collections.abc import Callable, Iterator, Sequence

from tetribench.core.seeds import generator


def orders(systems: Sequence[str], seed: int, *, is_twice: bool) -> Iterator[list[str]]:
    """For one repeat after the other, without end, the systems in the order of their slots.

    With `is_twice` each repeat serves every system twice, in an order that reads the same from both ends (A B B A): a
    steady drift of the machine then cancels out, and the two servings of one system show what the same system against
    itself would. The order is drawn anew for every second repeat; the one after it begins at the other end (B A A B),
    so that of two systems neither has the first slot more often than the other by more than one.
    """
    draw = generator(seed, "order of systems")
    while True:
        drawn = draw.sample(systems, len(systems))
        for order in (drawn, drawn[::-1]):
            yield [*order, *order[::-1]] if is_twice else order


class Repeats:
    """`num` repeats at the least; then, where `interval_width` is given, more of them until the ratios of the verdict's
    metric have 95 % intervals of at most that width, `max_num` repeats are done, or another would not end within
    `budget_s` of the start. With a width one of these two has to be given.

    Whoever stops when an interval looks narrow gets intervals that are a little too narrow: the report says that it was
    done, and the first look is after `num` repeats.
    """

    def __init__(
        self,
        num: int,
        *,
        max_num: int | None = None,
        interval_width: float | None = None,
        budget_s: float | None = None,
    ) -> None:
        if num < 1:
            raise ValueError(f"repeats={num}: must be at least 1")
        if (interval_width is None) != (max_num is None and budget_s is None):
            raise ValueError(
                f"until.interval_width={'null' if interval_width is None else interval_width}: must be given together "
                "with until.max_repeats or until.budget_s, which end what does not become narrow, or none of them"
            )
        if interval_width is not None and num < 2:
            raise ValueError(f"repeats={num}: must be at least 2 with until.interval_width, or there is no interval")
        for option, value in {"interval_width": interval_width, "budget_s": budget_s}.items():
            if value is not None and value <= 0:
                raise ValueError(f"until.{option}={value}: must be positive, or null")
        if max_num is not None and max_num < num:
            raise ValueError(f"until.max_repeats={max_num}: must be at least repeats={num}, or null")
        self.num = num
        self.max_num = max_num
        self.interval_width = interval_width
        self.budget_s = budget_s

    def asks_for_more(self, num_done: int, widest: Callable[[], float | None], spent_s: float) -> bool:
        """Whether to go on after `num_done` repeats, `spent_s` after the start. `widest` tells the width of the widest
        interval, None where there is none; it is not asked unless something depends on it."""
        if num_done < self.num or self.interval_width is None:
            return num_done < self.num
        width = widest()
        if width is not None and width <= self.interval_width:
            return False
        if self.max_num is not None and num_done >= self.max_num:
            return False
        return self.budget_s is None or spent_s * (num_done + 1) / num_done <= self.budget_s
