"""Length prediction: into which bucket of response lengths a request falls (paper section 3.3.2)."""

from pathlib import Path
from typing import Protocol

from tetribench.core.request import Request
from tetribench.core.seeds import Generator
from tetribench.core.sequence import LengthRange
from tetribench.engine.checkpoint import read_checkpoint


class Predictor(Protocol):
    """Pure: the answer depends on the request and the generator only."""

    runs_model: bool
    """It stands for a classifier, whose time is charged in virtual time."""

    def predict(self, request: Request, rng: Generator) -> LengthRange:
        """The range `[k * granularity, (k + 1) * granularity)` that the response length is expected in."""


class _Buckets:
    """Buckets of `granularity` tokens; the paper uses 200."""

    runs_model = True

    def __init__(self, granularity: int) -> None:
        if granularity < 1:
            raise ValueError(f"prefill.predict.granularity={granularity}: must be at least 1")
        self.granularity = granularity

    def _range(self, bucket: int) -> LengthRange:
        return LengthRange(bucket * self.granularity, (bucket + 1) * self.granularity)


class NoPrediction:
    """Any length below `limit_tokens`; not the client's own maximum, which is the truth where lengths are forced."""

    runs_model = False

    def __init__(self, *, limit_tokens: int = 2048) -> None:
        if limit_tokens < 1:
            raise ValueError(f"prefill.predict.limit_tokens={limit_tokens}: must be at least 1")
        self.limit_tokens = limit_tokens

    def predict(self, request: Request, rng: Generator) -> LengthRange:
        return LengthRange(0, self.limit_tokens)


class Oracle(_Buckets):
    """Always the right bucket where the client fixed the length; of a natural stop only the maximum is known."""

    def __init__(self, *, granularity: int = 200) -> None:
        super().__init__(granularity)

    def predict(self, request: Request, rng: Generator) -> LengthRange:
        if request.natural_stop:
            return LengthRange(0, request.max_output_tokens + 1)
        return self._range(request.max_output_tokens // self.granularity)


class NoisyOracle(_Buckets):
    """The right bucket with probability `accuracy`, else one of its neighbours with equal chance.

    Wrong predictions go to a neighbour because a classifier over ordered buckets errs there most; bucket 0 has only an
    upper neighbour. The default accuracy is the paper's for granularity 200.
    """

    def __init__(self, *, granularity: int = 200, accuracy: float = 0.749) -> None:
        super().__init__(granularity)
        if not 0.0 <= accuracy <= 1.0:
            raise ValueError(f"prefill.predict.accuracy={accuracy}: must be between 0 and 1")
        self.accuracy = accuracy

    def predict(self, request: Request, rng: Generator) -> LengthRange:
        if request.natural_stop:
            return LengthRange(0, request.max_output_tokens + 1)
        right = request.max_output_tokens // self.granularity
        if rng.random() < self.accuracy:
            return self._range(right)
        return self._range(right + rng.choice((-1, 1)) if right else 1)


class Learned:
    """The likeliest bucket of the classifier in the directory `checkpoint`, which says its granularity itself.

    `task=train_predictor` makes such a directory. It reads the requests' prompts.
    """

    def __init__(self, *, checkpoint: str) -> None:
        self.checkpoint = read_checkpoint(Path(checkpoint))
