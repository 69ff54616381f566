"""The cluster monitor collects loads and broadcasts the decode instances' to the prefill instances (section 3.2)."""

from tetribench.core.load import InstanceLoad


class ClusterMonitor:
    """Pure state. A load that it hands out is as old as `time_s` in it says: staleness is part of the design."""

    def __init__(self, decode_loads: dict[str, InstanceLoad]) -> None:
        """`decode_loads` names the decode instances and says how empty they are before their first report."""
        self._decode_loads = dict(decode_loads)

    def report(self, instance: str, load: InstanceLoad) -> None:
        """Keep the latest load of a decode instance; nobody decides on the others' loads."""
        if instance in self._decode_loads:
            self._decode_loads[instance] = load

    def broadcast(self) -> dict[str, InstanceLoad]:
        """The latest load of every decode instance."""
        return dict(self._decode_loads)
