"""Units. Time is float seconds from the start of a run; sizes are bytes or tokens, said in the name."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def ceil_div(numerator: int, denominator: int) -> int:
    """Smallest integer that is at least `numerator / denominator`, without floating point."""
    return -(-numerator // denominator)
