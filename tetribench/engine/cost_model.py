"""The time of an iteration, from the model's shape and the hardware's profile."""

from tetribench.engine.base import Batch
from tetribench.engine.hardware import Hardware
from tetribench.engine.model import ModelShape


class CostModel:
    """Seconds of one iteration. Additive, so monotone in every argument and defined for any size."""

    def __init__(self, shape: ModelShape, hardware: Hardware) -> None:
        self._hardware = hardware
        self._kv_bytes_per_token = shape.kv_bytes_per_token(hardware.bytes_per_value)
        self._flops_per_token = 2.0 * shape.num_parameters
        # scores and weighted sum: 2 products of 2 * head_size operations for each head, layer and key
        self._flops_per_key = 4.0 * shape.num_layers * shape.num_heads * shape.head_size
        self._fixed_s = hardware.overhead_s + shape.num_parameters * hardware.bytes_per_value / hardware.bytes_per_s

    def seconds(self, batch: Batch) -> float:
        """Predicted duration of `batch`, padding included."""
        num_tokens, num_keys_read, num_scores = batch.num_padding_tokens, 0, 0.0
        for chunk in batch.prefill:
            num_tokens += chunk.num_tokens
            num_keys_read += chunk.start + chunk.num_tokens
            num_scores += chunk.num_tokens * (chunk.start + (chunk.num_tokens + 1) / 2)
        num_context_tokens = sum([one.request.num_prompt_tokens + len(one.output_ids) for one in batch.decode])
        return self._seconds(len(batch.decode), num_context_tokens, num_tokens, num_keys_read, num_scores)

    def decode_seconds(self, num_sequences: int, num_context_tokens: int) -> float:
        """Predicted duration of a batch of decodes alone, which read `num_context_tokens` in all; as `seconds` says."""
        return self._seconds(num_sequences, num_context_tokens, 0, 0, 0.0)

    def _seconds(
        self, num_decodes: int, num_context_tokens: int, num_tokens: int, num_keys_read: int, num_scores: float
    ) -> float:
        hardware = self._hardware
        flops = (num_tokens + num_decodes) * self._flops_per_token + (
            num_scores + num_context_tokens
        ) * self._flops_per_key
        kv_bytes = (num_keys_read + num_context_tokens) * self._kv_bytes_per_token
        return (
            self._fixed_s
            + flops / hardware.flops_per_s
            + kv_bytes / hardware.bytes_per_s
            + num_decodes * hardware.per_sequence_s
        )
