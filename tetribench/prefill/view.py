"""What a prefill instance believes of the decode instances between two broadcasts of the cluster monitor."""

from dataclasses import replace

from tetribench.core.load import InstanceLoad
from tetribench.core.sequence import LengthRange


class LoadView:
    """The last broadcast, plus this instance's own dispatches since.

    Without the second part every request dispatched between two broadcasts would see the same free memory. The
    dispatches of *other* prefill instances stay unknown until the next broadcast: that staleness is the paper's design.
    """

    def __init__(self) -> None:
        self.loads: dict[str, InstanceLoad] = {}

    def update(self, loads: dict[str, InstanceLoad]) -> None:
        """A broadcast came: forget the corrections, it has counted them (or will, one period later)."""
        self.loads = loads

    def forget(self, name: str) -> None:
        """Nothing more goes to the decode instance `name`."""
        self.loads = {known: load for known, load in self.loads.items() if known != name}

    def note_dispatch(self, to: str, num_kv_tokens: int, predicted: LengthRange) -> None:
        """Count a request as the decode instance will in its next report: what it has, not yet what it will produce."""
        load = self.loads[to]
        noted = replace(
            load,
            num_free_tokens=load.num_free_tokens - num_kv_tokens,
            num_heavy=load.num_heavy + predicted.is_heavy,
            num_light=load.num_light + (not predicted.is_heavy),
        )
        self.loads = {**self.loads, to: noted}  # a broadcast is not this instance's alone
