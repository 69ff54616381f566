"""Checks of options, each a one-line ValueError that names the option."""

import math


def check_count(option: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{option}={value}: must be at least 1")


def check_positive(option: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{option}={value}: must be above 0 and finite")
