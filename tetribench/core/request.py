"""A request as the client means it, and the paper's four classes of request."""

from dataclasses import dataclass

HEAVY_PREFILL_TOKENS = 512
"""A prompt with more tokens than this is a heavy prefill (paper section 5.1)."""

HEAVY_DECODE_TOKENS = 128
"""A response with more tokens than this is a heavy decode (paper section 5.1)."""

DEFAULT_SLA_CLASS = "default"
"""Of a request for which nothing else was agreed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked, and when.

    `arrival_s` is the *intended* arrival; every latency is counted from it.
    `max_output_tokens` is exact unless `natural_stop`, where a stop token may end the response earlier.
    `prompt_ids` is empty where only lengths matter (virtual time); otherwise it has `num_prompt_tokens` entries.
    `text` is the prompt in words, where they are known; a length predictor has a tokenizer of its own and reads these.
    `label` names the class the request was drawn for (`LPLD`, `HPHD`, ...), before any scaling of lengths.
    `sla_class` names the service level agreement it came under (paper section 3.2): whose bounds it is judged by.
    """

    id: int
    arrival_s: float
    num_prompt_tokens: int
    max_output_tokens: int
    natural_stop: bool = False
    label: str = ""
    sla_class: str = DEFAULT_SLA_CLASS
    prompt_ids: tuple[int, ...] = ()
    text: str = ""

    @property
    def num_tokens(self) -> int:
        """Tokens in all if the response runs to its maximum."""
        return self.num_prompt_tokens + self.max_output_tokens


def class_of(num_prompt_tokens: int, num_output_tokens: int) -> str:
    """`LPLD`, `LPHD`, `HPLD` or `HPHD` by the paper's thresholds."""
    prefill = "HP" if num_prompt_tokens > HEAVY_PREFILL_TOKENS else "LP"
    decode = "HD" if num_output_tokens > HEAVY_DECODE_TOKENS else "LD"
    return prefill + decode
