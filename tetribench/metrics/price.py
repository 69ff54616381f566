"""What devices cost to have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """In US dollars for each hour of one device; None where nobody has said."""

    price_per_device_hour: float | None = None

    def __post_init__(self) -> None:
        if self.price_per_device_hour is not None and not self.price_per_device_hour > 0:
            raise ValueError(f"cost.price_per_device_hour={self.price_per_device_hour}: must be above 0 or null")

    def of(self, device_seconds: float) -> float:
        """US dollars; NaN without a price."""
        price = self.price_per_device_hour
        return float("nan") if price is None else device_seconds / 3600 * price
