"""What a verdict is about; without pandas, because it is checked before anything starts."""

from dataclasses import dataclass

DECIDABLE = (
    "mean_ttft_s",
    "p95_ttft_s",
    "mean_tpot_s",
    "mean_jct_s",
    "p95_jct_s",
    "makespan_s",
    "output_throughput_tokens_per_s",
    "resource_time_s",
    "device_seconds",
    "perf_per_dollar_paper",
    "perf_per_dollar_usual",
)
"""Headline metrics that a ratio can be taken of."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`metric` is the headline that the verdict is about; a ratio between 1 - `margin` and 1 + `margin` makes no
    difference to anybody."""

    metric: str = "mean_jct_s"
    margin: float = 0.05

    def __post_init__(self) -> None:
        if self.metric not in DECIDABLE:
            raise ValueError(f"verdict.metric={self.metric}: must be one of {', '.join(DECIDABLE)}")
        if not 0.0 < self.margin < 1.0:
            raise ValueError(f"verdict.margin={self.margin}: must be above 0 and below 1")
