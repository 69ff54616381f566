"""Rows as experiments make them."""

from collections.abc import Callable, Mapping
from itertools import product

import pandas as pd
import pytest

Rows = Callable[..., pd.DataFrame]


@pytest.fixture
def rows_of() -> Rows:
    """Rows of every combination of `axes` with three seeds; a quantity depends on its cell and a little on the seed."""

    def make(axes: Mapping[str, list[str]], quantities: list[str]) -> pd.DataFrame:
        rows = []
        for number, labels in enumerate(product(*axes.values())):
            for seed in (2, 0, 1):
                values = {name: (1 + 0.01 * seed) / (number + 1) + place for place, name in enumerate(quantities)}
                rows.append({**dict(zip(axes, labels, strict=True)), "seed": seed, **values})
        return pd.DataFrame(rows)

    return make
