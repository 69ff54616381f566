"""What is asked of an OpenAI-compatible server for one request."""

from dataclasses import dataclass, field
from typing import Any

from tetribench.core.messages import Submit

MODEL = "model"
"""The name that servers started here serve under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """How a server is spoken to.

    `ignore_eos` and `return_token_ids` are for servers that know these two additions to OpenAI's interface: a response
    runs to its length, and chunks carry token ids. Without the ids, a chunk with text counts as one token, token 0.
    `timeout_s` is the longest silence of a server, before its first token and between two chunks.
    """

    model: str = MODEL
    key: str | None = field(default=None, repr=False)
    ignore_eos: bool = True
    return_token_ids: bool = True
    connect_timeout_s: float = 10.0
    timeout_s: float = 120.0
    sampling: dict[str, float] = field(default_factory=lambda: {"temperature": 0.0})

    def body(self, submitted: Submit) -> dict[str, Any]:
        """A streamed completion of a prompt of token ids; of a request that starts again, of what is left of it."""
        request = submitted.request
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": [*request.prompt_ids, *submitted.output_ids],
            "max_tokens": request.max_output_tokens - len(submitted.output_ids),
            "stream": True,
            **self.sampling,
        }
        if self.ignore_eos and not request.natural_stop:
            body["ignore_eos"] = True
        if self.return_token_ids:
            body["return_token_ids"] = True
        return body
