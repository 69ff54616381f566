"""How fast a link is said to be, whatever carries its bytes (paper section 4: bytes / bandwidth is waited out)."""


class LinkSpeed:
    """A link by its numbers: a message of n bytes takes `latency_s + n / bandwidth_bytes_per_s`.

    Without a bandwidth the link is as fast as its medium. In real time the bytes really move and the rest of the link's
    time is waited out, so that a link can be emulated that is slower than the medium, never a faster one.
    """

    def __init__(self, *, bandwidth_bytes_per_s: float | None = None, latency_s: float = 0.0) -> None:
        if bandwidth_bytes_per_s is not None and bandwidth_bytes_per_s <= 0:
            raise ValueError(f"kv.speed.bandwidth_bytes_per_s={bandwidth_bytes_per_s}: must be positive, or null")
        if latency_s < 0:
            raise ValueError(f"kv.speed.latency_s={latency_s}: must not be negative")
        self.bandwidth_bytes_per_s = bandwidth_bytes_per_s
        self.latency_s = latency_s

    def seconds(self, num_bytes: int) -> float:
        """Time on the wire; without a bandwidth, the latency alone."""
        if self.bandwidth_bytes_per_s is None:
            return self.latency_s
        return self.latency_s + num_bytes / self.bandwidth_bytes_per_s

    def __str__(self) -> str:
        """Nothing for a link that is as fast as its medium."""
        parts = []
        if self.bandwidth_bytes_per_s is not None:
            parts.append(f"at most {self.bandwidth_bytes_per_s / 1e9:g} GB/s")
        if self.latency_s:
            parts.append(f"{self.latency_s * 1e6:g} us latency")
        return ", ".join(parts)


AS_FAST_AS_THE_MEDIUM = LinkSpeed()
