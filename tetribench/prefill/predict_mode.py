"""When predictions run: before prefill, or beside it (paper section 3.3.2)."""

from collections import deque

from tetribench.core.request import Request


class PredictMode:
    """How requests are put together for the length predictor; `is_parallel` says when it runs.

    Requests are predicted in the order of their arrival, up to `batch_size` at once. A batch is padded to its longest
    prompt, so that prompts over `padding_limit_tokens` are predicted alone. With `charge`, predictions take time on a
    cost model whose hardware's profile knows a predictor's cost, whoever answers: the paper's system always runs one.
    """

    is_parallel: bool

    def __init__(self, *, batch_size: int = 16, padding_limit_tokens: int = 512, charge: bool = True) -> None:
        if batch_size < 1:
            raise ValueError(f"prefill.predict_mode.batch_size={batch_size}: must be at least 1")
        if padding_limit_tokens < 1:
            raise ValueError(f"prefill.predict_mode.padding_limit_tokens={padding_limit_tokens}: must be at least 1")
        self.batch_size = batch_size
        self.padding_limit_tokens = padding_limit_tokens
        self.charge = charge

    def next_group(self, waiting: deque[Request]) -> list[Request]:
        """Take the requests that are predicted together off the front of `waiting`; none where nobody waits."""
        group: list[Request] = []
        while waiting and len(group) < self.batch_size:
            is_alone = waiting[0].num_prompt_tokens > self.padding_limit_tokens
            if is_alone and group:
                break
            group.append(waiting.popleft())
            if is_alone:
                break
        return group


class Sequential(PredictMode):
    """A prompt is prefilled after its prediction; predictions and iterations take turns on the device."""

    is_parallel = False


class Parallel(PredictMode):
    """Predictions run beside iterations; a prompt whose first chunk ends before its prediction is dispatched with it.

    On a CPU in real time a learned predictor takes a core of its own; where there is none, it takes turns after all.
    """

    is_parallel = True
