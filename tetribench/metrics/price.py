"""What devices cost to have."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """In US dollars for each hour of one device; None where nobody has said."""

    price_per_device_hour: float | None = None

    def __post_init__(self) -> None:
        price = self.price_per_device_hour
        if price is not None and not 0 < price < inf:
            raise ValueError(f"cost.price_per_device_hour={price}: must be above 0 and finite, or null")

    def of(self, device_seconds: float) -> float:
        """US dollars; NaN without a price."""
        price = self.price_per_device_hour
        return float("nan") if price is None else device_seconds / 3600 * price
