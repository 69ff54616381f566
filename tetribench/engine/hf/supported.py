"""Which decoders the paged attention computes exactly, told from their configuration alone. No torch here."""

from typing import Any

_REFUSED_FAMILIES = {
    "bloom": "ALiBi position biases are not implemented",
    "falcon": "its attention does not go through transformers' AttentionInterface",
    "gpt_oss": "attention sinks are not implemented",
    "gptj": "its attention does not go through transformers' AttentionInterface",
    "mpt": "ALiBi position biases are not implemented",
}


def unsupported_reason(config: dict[str, Any]) -> str | None:
    """Why a model with this Hugging Face configuration would come out wrong; None where nothing is known against it."""
    family = str(config.get("model_type", ""))
    if family in _REFUSED_FAMILIES:
        return _REFUSED_FAMILIES[family]
    if config.get("is_encoder_decoder"):
        return "encoder-decoder models are not implemented"
    if config.get("alibi"):
        return "ALiBi position biases are not implemented"
    if config.get("attn_logit_softcapping") is not None:
        return "attention logit soft-capping is not implemented"
    if config.get("kv_lora_rank") is not None:
        return "multi-head latent attention is not implemented"
    if _sliding_window_in_use(config):
        return "sliding-window attention is not implemented"
    others = sorted(set(config.get("layer_types") or []) - {"full_attention", "sliding_attention"})
    if others:
        return f"layers of type {others[0]} are not implemented"
    return None


def _sliding_window_in_use(config: dict[str, Any]) -> bool:
    """Some families carry a window that is switched off, or one as wide as the context."""
    window = config.get("sliding_window")
    if window is None or not config.get("use_sliding_window", True):
        return False
    layer_types = config.get("layer_types")
    if layer_types and "sliding_attention" not in layer_types:
        return False
    return int(window) < int(config.get("max_position_embeddings", 0) or window + 1)
