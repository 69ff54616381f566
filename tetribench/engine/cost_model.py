"""The time of an iteration, from the model's shape and the hardware's profile."""

from math import sqrt

from tetribench.engine.base import Batch
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import ModelShape


class CostModel:
    """Seconds of one iteration: a roofline of what it must do, and what nothing hides.

        memory  = overhead_s + weights / bytes_per_s
        compute = (sqrt(prompt * max(prompt, saturation)) + decode) / flops_per_s + scores / attention_flops_per_s
        seconds = (memory^p + compute^p)^(1/p)
                  + KV read / kv_bytes_per_s + per_prompt_s a chunk + per_sequence_s a decode
                  + batching_s of more than one token + all-reduces + per_iteration_s

    `prompt` and `decode` are floating-point operations of their tokens; `saturation` those of `saturation_tokens`
    prompt tokens. Below it the device computes prompts at a rate that grows with the square root of their number, as
    small matrices do not fill it (the paper's figure 2a); at 0 the rate is always full. `scores` are the operations of
    the prompts' attention, which grow with the square of a prompt. `roofline_power` p says how far what is launched and
    loaded hides behind what is computed: 1 not at all (a sum), larger powers more and more (the larger of the two).

    The attention of decodes counts as the KV that it reads: one query for each key computes next to nothing.

    Every term grows with every argument and is defined for any size.
    """

    def __init__(self, shape: ModelShape, hardware: Hardware) -> None:
        weight_bytes = shape.num_parameters * hardware.bytes_per_value
        kv_bytes_per_token = shape.kv_bytes_per_token(hardware.bytes_per_value)
        # scores and weighted sum: 2 products of 2 * head_size operations for each head, layer and key
        self._score_s = 4.0 * shape.num_layers * shape.num_heads * shape.head_size / hardware.attention_flops_per_s
        self._token_s = 2.0 * shape.num_parameters / hardware.flops_per_s
        self._saturation_s = hardware.saturation_tokens * self._token_s
        self._power: float = hardware.roofline_power
        self._root: float = 1.0 / self._power
        self._memory = (hardware.overhead_s + weight_bytes / hardware.bytes_per_s) ** self._power
        self._key_s = kv_bytes_per_token / hardware.kv_bytes_per_s
        self._per_prompt_s = hardware.per_prompt_s
        self._batching_s = hardware.batching_s
        # after attention and after the feed-forward network
        num_all_reduces = 2 * shape.num_layers
        self._always_s = num_all_reduces * hardware.all_reduce_s + hardware.per_iteration_s
        row_bytes = shape.hidden_size * hardware.bytes_per_value
        self._row_s = num_all_reduces * row_bytes * hardware.all_reduce_s_per_byte
        self._per_sequence_s = hardware.per_sequence_s + self._row_s

    def seconds(self, batch: Batch) -> float:
        """Predicted duration of `batch`, padding included."""
        num_tokens, num_keys_read, num_scores = batch.num_padding_tokens, 0, 0.0
        for chunk in batch.prefill:
            num_tokens += chunk.num_tokens
            num_keys_read += chunk.start + chunk.num_tokens
            num_scores += chunk.num_tokens * (chunk.start + (chunk.num_tokens + 1) / 2)
        num_context_tokens = sum([one.request.num_prompt_tokens + len(one.output_ids) for one in batch.decode])
        prompt_s = num_tokens * self._token_s
        prompts_s = sqrt(prompt_s * max(prompt_s, self._saturation_s)) + num_scores * self._score_s
        num_rows = num_tokens + len(batch.decode)
        return (
            self._seconds(num_rows, len(batch.decode), num_context_tokens + num_keys_read, prompts_s)
            + len(batch.prefill) * self._per_prompt_s
            + num_tokens * self._row_s
        )

    def decode_seconds(self, num_sequences: int, num_context_tokens: int) -> float:
        """Predicted duration of a batch of decodes alone, which read `num_context_tokens` in all; as `seconds` says."""
        return self._seconds(num_sequences, num_sequences, num_context_tokens, 0.0)

    def steady_seconds(self, num_sequences: int, num_context_tokens: int, num_iterations: int) -> list[float]:
        """As `decode_seconds`, of so many iterations of the same decodes; each adds a token to every context."""
        roofline_s, key_s = self._roofline_s(num_sequences * self._token_s), self._key_s
        sequences_s, always_s = num_sequences * self._per_sequence_s, self._overhead_s(num_sequences)
        contexts = range(num_context_tokens, num_context_tokens + num_iterations * num_sequences, num_sequences)
        return [roofline_s + num_keys_read * key_s + sequences_s + always_s for num_keys_read in contexts]

    def _seconds(self, num_rows: int, num_decodes: int, num_keys_read: int, prompts_s: float) -> float:
        roofline_s = self._roofline_s(prompts_s + num_decodes * self._token_s)
        sequences_s, always_s = num_decodes * self._per_sequence_s, self._overhead_s(num_rows)
        return roofline_s + num_keys_read * self._key_s + sequences_s + always_s

    def _roofline_s(self, compute_s: float) -> float:
        seconds: float = (self._memory + compute_s**self._power) ** self._root
        return seconds

    def _overhead_s(self, num_rows: int) -> float:
        return self._always_s + self._batching_s if num_rows > 1 else self._always_s
