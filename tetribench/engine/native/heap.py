"""What the C library does with memory that is given back to it."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`: how much may be free at the end of a heap, and from which size on a piece is the
system's own. It takes no more than 32 MiB for the latter."""

_KEPT_BYTES = 2**30
_LARGEST_BYTES = 32 * 2**20


def keep_freed_memory() -> None:
    """For what this process allocates next; the system, given it back, would zero each page again at its next touch.

    A pass over a chunk allocates and frees some megabytes in each layer. Another C library than glibc does as it likes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
