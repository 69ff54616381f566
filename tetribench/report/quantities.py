"""Numbers as people read them: three significant digits, in a unit that fits all numbers beside each other."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, isfinite, log10

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

_STEPS = {
    "s": ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs")),
    "bytes": ((1e9, 1e-9, "GB"), (1e6, 1e-6, "MB"), (1e3, 1e-3, "kB"), (0.0, 1.0, "bytes")),
    "bytes/s": ((1e9, 1e-9, "GB/s"), (1e6, 1e-6, "MB/s"), (1e3, 1e-3, "kB/s"), (0.0, 1.0, "bytes/s")),
    "share": ((0.0, 100.0, "%"),),
    "ratio": ((0.0, 1.0, TIMES),),
}
"""By a metric's unit: from which size on, the factor to and the name of the unit shown."""

_COUNTS = frozenset({"requests", "preemptions", "tokens"})


@dataclass(frozen=True, slots=True)
class Scale:
    """From a metric's own unit to the one shown."""

    factor: float
    unit: str

    def text(self, value: float | None) -> str:
        """The number alone; a dash where it is undefined."""
        if value is None or not isfinite(value):
            return DASH
        return f"{value:,.0f}" if self.unit in _COUNTS else three_digits(value * self.factor)

    def text_with_unit(self, value: float | None) -> str:
        text = self.text(value)
        space = "" if self.unit in ("%", TIMES) else " "
        return text if text == DASH else f"{text}{space}{self.unit}".rstrip()


def scale_for(values: Iterable[float | None], unit: str) -> Scale:
    """The scale that suits the largest of `values`, which are in `unit`."""
    largest = max((abs(value) for value in values if value is not None and isfinite(value)), default=1.0)
    if largest == 0:
        return Scale(1.0, unit) if unit not in ("share", "ratio") else Scale(*_STEPS[unit][0][1:])
    return next(
        (Scale(factor, shown) for size, factor, shown in _STEPS.get(unit, ()) if largest >= size), Scale(1.0, unit)
    )


def scale_for_all(values: Iterable[float | None], unit: str) -> Scale:
    """The scale that suits the smallest of `values` above 0, unless the largest would need more than five digits."""
    sizes = [abs(value) for value in values if value and isfinite(value)]
    scale = scale_for([min(sizes, default=None)], unit)
    return scale if max(sizes, default=0.0) * scale.factor < 1e5 else scale_for(sizes, unit)


def three_digits(value: float) -> str:
    """Three significant digits, or all digits before the point if there are more."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    num_decimals = max(2 - floor(log10(abs(rounded))), 0)
    return f"{value if num_decimals == 0 else rounded:,.{num_decimals}f}"


def ratio_text(ratio: float | None) -> str:
    return Scale(1.0, TIMES).text_with_unit(ratio)
