"""What a prefill instance believes of the decode instances between two broadcasts of the cluster monitor."""

from dataclasses import replace

from tetribench.core.load import InstanceLoad
from tetribench.core.request import Request
from tetribench.core.sequence import Estimate, LengthRange


class LoadView:
    """The last broadcast, plus this instance's own dispatches since.

    Without the second part every request dispatched between two broadcasts would see the same free memory. The
    dispatches of *other* prefill instances stay unknown until the next broadcast: that staleness is the paper's design.
    """

    def __init__(self) -> None:
        self.loads: dict[str, InstanceLoad] = {}

    def update(self, loads: dict[str, InstanceLoad]) -> None:
        """A broadcast came: forget the corrections, it has counted them (or will, one period later)."""
        self.loads = dict(loads)

    def note_dispatch(self, to: str, request: Request, predicted: LengthRange, estimate: Estimate) -> None:
        """Count `request` as if the decode instance had already accepted it."""
        load = self.loads[to]
        need_tokens = request.num_prompt_tokens + predicted.estimate(estimate)
        self.loads[to] = replace(
            load,
            num_free_tokens=load.num_free_tokens - need_tokens,
            num_heavy=load.num_heavy + predicted.is_heavy,
            num_light=load.num_light + (not predicted.is_heavy),
        )
