"""Which response lengths a prefill instance knows, waits for, and has asked for (paper section 3.3.2)."""

from collections import deque

from tetribench.core.messages import Submit
from tetribench.core.request import Request
from tetribench.core.sequence import LengthRange, Sequence
from tetribench.prefill.predict_mode import PredictMode


class Predictions:
    """Requests on their way through the length predictor, beside their way through the prefill.

    A sequential predictor keeps a request out of the raw queue until it is predicted. A parallel one lets it in, and a
    sequence whose first chunk ends earlier waits here for its prediction.
    """

    def __init__(self, mode: PredictMode, is_parallel: bool) -> None:
        self._mode = mode
        self._is_parallel = is_parallel
        self._unpredicted: deque[Request] = deque()
        self._predicting: set[int] = set()
        self._known: dict[int, LengthRange | None] = {}
        """Of all requests that are not dispatched yet; None while a prediction is not there."""
        self._held: dict[int, Submit] = {}
        self._waiting: dict[int, tuple[Sequence, int]] = {}
        """With the tokens whose KV is to be handed over."""

    def __len__(self) -> int:
        """Requests that are not dispatched yet."""
        return len(self._known)

    @property
    def is_predicting(self) -> bool:
        """The predictor is at work, if only for requests that have ended meanwhile."""
        return bool(self._predicting)

    @property
    def held(self) -> list[Submit]:
        """Those that may not be prefilled yet."""
        return list(self._held.values())

    def submit(self, submitted: Submit) -> bool:
        """A request has come; whether it may be prefilled at once."""
        request = submitted.request
        self._unpredicted.append(request)
        self._known[request.id] = None
        if not self._is_parallel:
            self._held[request.id] = submitted
        return self._is_parallel

    def next_group(self) -> list[Request]:
        """Whom to predict next, together."""
        while self._unpredicted and self._unpredicted[0].id not in self._known:
            self._unpredicted.popleft()  # its response has ended with its first token
        group = self._mode.next_group(self._unpredicted)
        self._predicting.update(request.id for request in group)
        return group

    def learn(self, request_id: int, found: LengthRange) -> tuple[Submit | None, tuple[Sequence, int] | None]:
        """A prediction has come: what may now be prefilled, and what may now be dispatched."""
        self._predicting.remove(request_id)
        if request_id in self._known:
            self._known[request_id] = found
        return self._held.pop(request_id, None), self._waiting.pop(request_id, None)

    def take(self, sequence: Sequence, num_kv_tokens: int) -> bool:
        """Give `sequence` its prediction, for it is to be dispatched; without one it waits here until `learn`."""
        request_id = sequence.request.id
        predicted = self._known[request_id]
        if predicted is None:
            self._waiting[request_id] = sequence, num_kv_tokens
            return False
        sequence.predicted = predicted
        del self._known[request_id]
        return True

    def forget(self, request_id: int) -> None:
        """Nothing of this request is to be dispatched."""
        self._known.pop(request_id, None)
        self._waiting.pop(request_id, None)
