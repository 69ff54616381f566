"""What an instance says of its load: the only thing the control plane and the dispatchers know of it."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class InstanceLoad:
    """A snapshot taken on the instance at `time_s`.

    `num_queued_tokens` is the prompt tokens that wait for prefill. `num_free_tokens` of `num_total_tokens` KV slots are
    promised to nobody; it is negative where more is asked for than there is, so that overloads can be compared.
    `num_waiting` requests wait for prefill, or on a decode instance for KV memory. `num_heavy` and `num_light` count
    the decodes it has accepted by predicted length. `busy_share` is the share of the last reporting period in which
    its engine ran, which is for whoever runs it to fill in. Once it is sent nobody changes it; it is not frozen because
    that would treble what it takes to make one.
    """

    time_s: float
    num_total_tokens: int
    num_free_tokens: int
    num_queued_tokens: int = 0
    num_waiting: int = 0
    num_running: int = 0
    num_heavy: int = 0
    num_light: int = 0
    busy_share: float = 0.0

    @property
    def used_share(self) -> float:
        """Of the KV memory, what is held or asked for; above 1 where more is asked for than there is."""
        return (self.num_total_tokens - self.num_free_tokens) / self.num_total_tokens

    @property
    def is_idle(self) -> bool:
        """Nothing waits, nothing runs, and nothing did since the last report."""
        return not self.num_waiting and not self.num_running and self.busy_share == 0.0


def heavy_share(num_heavy: int, num_light: int, joins_heavy: bool) -> float:
    """Share of heavy decodes on an instance once one more, heavy or light, has joined: the interference there."""
    return (num_heavy + joins_heavy) / (num_heavy + num_light + 1)
