"""How many of a GPU's multiprocessors each of two engines has. No torch here."""

GRANULARITY = 8
"""The driver gives them out by so many on compute capability 9.0. Older GPUs take them by 2 or 4, and so by 8 too."""

_ROUNDING = 1e-9


def first_part(num_multiprocessors: int, share: float) -> int:
    """Those of the first engine, a multiple of 8 within its share; the second has the rest.

    Raises ValueError, naming the option, where one of the two would have fewer than 8.
    """
    num_first = int(num_multiprocessors * share + _ROUNDING) // GRANULARITY * GRANULARITY
    most = (num_multiprocessors - GRANULARITY) // GRANULARITY * GRANULARITY
    if not GRANULARITY <= num_first <= most:
        least, beyond = GRANULARITY / num_multiprocessors, (most + GRANULARITY) / num_multiprocessors
        raise ValueError(
            f"system.tetri.prefill_share={share:g}: is {num_first} of {num_multiprocessors} multiprocessors, which are "
            f"given out by {GRANULARITY}, to each side at least as many; must be at least {least:.3f} and below "
            f"{beyond:.3f}"
        )
    return num_first
