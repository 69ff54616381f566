"""Looking at a run while it goes on: whether its repeats say enough by now."""

from pathlib import Path
from typing import Any


class Looks:
    """At the run folder `path`. Each repeat is read once, by the first look after it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._served: list[Any] = []
        self._num_read = 0

    def width(self) -> float | None:
        """Of the widest interval of the verdict's metric over the repeats so far; None where there is none."""
        from tetribench.metrics.paired import compare, widest  # pandas: not before a run asks for it
        from tetribench.report.facts import read_facts
        from tetribench.report.servings import measure_repeat

        facts = read_facts(self._path)
        for number in range(self._num_read, len(facts.repeats)):
            for one in measure_repeat(self._path, facts, number, is_complete=True):
                self._served.append(one._replace(result=one.result.lean()))
        self._num_read = len(facts.repeats)
        return widest(compare(self._served, facts.baseline, facts.verdict, facts.seed), facts.verdict)
