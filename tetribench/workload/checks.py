"""Checks of options, each a one-line ValueError that names the option."""

import math
import re


def check_count(option: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{option}={value}: must be at least 1")


def check_positive(option: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{option}={value}: must be above 0 and finite")


def check_sla_class(option: str, name: str) -> None:
    """It becomes a part of option names and of paths in metrics.json."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{option}={name}: must be letters, digits, - and _")
