"""Spread of iteration times in virtual time, which has none of its own: to see what statistics make of it."""

from math import exp

from tetribench.core.seeds import Generator


class Noise:
    """Factors of mean 1, lognormal: `run` is the standard deviation of one that an engine keeps as long as it runs,
    `step` that of one for each of its iterations."""

    def __init__(self, step: float, run: float, generator: Generator) -> None:
        self._step = step
        self._generator = generator
        self._always = self._drawn(run)
        self._factors: list[float] = []

    def factor(self, iteration: int) -> float:
        """Of the iteration of that number, counted from 0: the same whenever it is asked for."""
        while len(self._factors) <= iteration:
            self._factors.append(self._always * self._drawn(self._step))
        return self._factors[iteration]

    def _drawn(self, deviation: float) -> float:
        return exp(self._generator.gauss(-(deviation**2) / 2, deviation)) if deviation else 1.0
