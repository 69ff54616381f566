"""Prompt and generation lengths: the distributions of the paper's figure 1, drawn as a whole or for one class."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tetribench.core.request import HEAVY_DECODE_TOKENS, HEAVY_PREFILL_TOKENS

if TYPE_CHECKING:
    from numpy.random import Generator


class LengthClass(Enum):
    """Which side of the paper's threshold lengths are drawn from."""

    light = "light"
    heavy = "heavy"
    any = "any"


class Task(Enum):
    """The three tasks of the paper's figure 1."""

    conversation = "conversation"
    summarization = "summarization"
    writing = "writing"


QUANTILES = (0.0, 0.1, 0.5, 0.75, 0.9, 0.95, 0.985, 1.0)


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """A piecewise log-linear distribution: `tokens[i]` is its quantile at `QUANTILES[i]`, `heavy_above` its threshold.

    A length is the quantile function at a uniform number, rounded up, so that the share of lengths of at most n tokens
    is `share_at_most(n)` for every whole n.
    """

    tokens: tuple[int, ...]
    heavy_above: int

    def share_at_most(self, num_tokens: int) -> float:
        import numpy as np

        return float(np.interp(math.log(num_tokens), np.log(self.tokens), QUANTILES))

    def sample(self, rng: "Generator", num_lengths: int, length_class: LengthClass) -> list[int]:
        """Lengths of one class: the uniform numbers come from that class's part of the distribution alone."""
        import numpy as np

        first, last, low, high = 1, self.tokens[-1], 0.0, 1.0
        if length_class is LengthClass.light:
            last, high = self.heavy_above, self.share_at_most(self.heavy_above)
        elif length_class is LengthClass.heavy:
            first, low = self.heavy_above + 1, self.share_at_most(self.heavy_above)
        uniform = low + (high - low) * (1.0 - rng.random(num_lengths))
        lengths = np.ceil(np.exp(np.interp(uniform, QUANTILES, np.log(self.tokens))))
        sampled: list[int] = np.clip(lengths, first, last).astype(int).tolist()
        return sampled


def _prompt(*tokens: int) -> LengthDistribution:
    return LengthDistribution((1, *tokens), HEAVY_PREFILL_TOKENS)


def _output(*tokens: int) -> LengthDistribution:
    return LengthDistribution((1, *tokens), HEAVY_DECODE_TOKENS)


# Quantiles measured on the curves of figure 1 (arXiv 2401.11181v1). The lowest is ours: the curves show none below p10.
PROMPT_TOKENS = {
    Task.conversation: _prompt(10, 203, 567, 1060, 1400, 2460, 20900),
    Task.summarization: _prompt(1200, 3400, 5200, 7700, 9500, 12500, 18600),
    Task.writing: _prompt(377, 514, 594, 671, 724, 827, 1100),
}
OUTPUT_TOKENS = {
    Task.conversation: _output(9, 117, 319, 577, 768, 1160, 2100),
    Task.summarization: _output(121, 273, 357, 413, 439, 487, 769),
    Task.writing: _output(1100, 4500, 6500, 7800, 8300, 8650, 9200),
}
