"""The response to one request, as tokens."""

from tetribench.core.messages import Submit, TokenOutput
from tetribench.servers.http import Piece
from tetribench.servers.refused import Refused


class Tokens:
    """Writes the tokens of pieces to `outputs`, and raises Refused where they are not what was asked for."""

    def __init__(self, submitted: Submit, outputs: list[TokenOutput]) -> None:
        self.submitted = submitted
        self.request = submitted.request
        self.attempt = submitted.attempt
        self._outputs = outputs
        self._num_tokens = len(submitted.output_ids)
        self._finish_reason: str | None = None

    def take(self, piece: Piece) -> None:
        request, first = self.request, self._num_tokens
        self._finish_reason = piece.finish_reason or self._finish_reason
        end = first + len(piece.token_ids)
        if end > request.max_output_tokens:
            raise Refused(f"more than the {request.max_output_tokens} tokens that were asked for")
        has_stopped = self._finish_reason == "stop" and request.natural_stop
        last = (end if has_stopped else request.max_output_tokens) - 1
        for index, token_id in enumerate(piece.token_ids, first):
            self._outputs.append(TokenOutput(request.id, self.attempt, index, token_id, index == last))
        self._num_tokens = end

    def check_end(self) -> None:
        """No more will come."""
        request, num_tokens = self.request, self._num_tokens
        has_stopped = request.natural_stop and self._finish_reason == "stop" and num_tokens > 0
        if num_tokens < request.max_output_tokens and not has_stopped:
            raise Refused(f"{num_tokens} tokens of {request.max_output_tokens} (finish_reason {self._finish_reason})")
