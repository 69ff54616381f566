"""Keeps transformers' progress bars and advice out of the user's terminal while files are loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

from tqdm.std import tqdm  # type: ignore[import-untyped]
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Errors still come through; the settings before are restored."""
    verbosity = logging.get_verbosity()
    with_bar = tqdm.__init__
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    tqdm.__init__ = partialmethod(with_bar, disable=True)  # the bar of GGUF files obeys no setting of transformers
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        tqdm.__init__ = with_bar
