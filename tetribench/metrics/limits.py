"""When a run is INVALID; without pandas, because it is checked before anything starts."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may show at most and still count; null is no limit.

    The client is calibrated with `calibration_s` seconds of load before a run in real time. What it adds to the
    verdict's metric may be `client_share` of the difference that is claimed, or of the smallest that matters
    (`verdict.margin`). A send is late when it is `late_s` after its time, and so may `late_share` of them be. Of the
    requests `failed_share` may fail or never end. Other programs may take `other_share` of the cores. No TTFT may be as
    low as `min_ttft_s`.
    """

    calibration_s: float | None = 5.0
    client_share: float = 0.2
    late_s: float = 0.02
    late_share: float | None = 0.01
    failed_share: float = 0.01
    other_share: float | None = 0.1
    min_ttft_s: float = 0.0

    def __post_init__(self) -> None:
        options = asdict(self)
        for name in ("client_share", "late_share", "failed_share", "other_share"):
            share = options[name]
            if share is not None and not 0.0 <= share <= 1.0:
                raise ValueError(f"validity.{name}={share}: must be between 0 and 1")
        for name in ("late_s", "min_ttft_s"):
            if not options[name] >= 0.0:
                raise ValueError(f"validity.{name}={options[name]}: must be at least 0")
        if self.calibration_s is not None and not 1.0 <= self.calibration_s <= 60.0:
            raise ValueError(f"validity.calibration_s={self.calibration_s}: must be between 1 and 60, or null for none")
