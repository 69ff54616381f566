from typing import Any

import pytest

from tetribench.engine.hf.supported import unsupported_reason


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "falcon"}, "AttentionInterface"),
        ({"model_type": "gptj"}, "AttentionInterface"),
        ({"model_type": "gpt_oss"}, "sinks"),
        ({"model_type": "bloom"}, "ALiBi"),
        ({"alibi": True}, "ALiBi"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"attn_logit_softcapping": 50.0}, "soft-capping"),
        ({"kv_lora_rank": 512}, "latent"),
        ({"sliding_window": 4096, "max_position_embeddings": 32768}, "sliding-window"),
        ({"sliding_window": 4096}, "sliding-window"),
        ({"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}, "sliding-window"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_what_would_come_out_wrong_is_refused(config: dict[str, Any], word: str) -> None:
    reason = unsupported_reason(config)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "max_position_embeddings": 2048},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False},
        {"sliding_window": 2048, "max_position_embeddings": 2048},
        {"sliding_window": 64, "layer_types": ["full_attention"]},
        {"alibi": False, "attn_logit_softcapping": None},
    ],
)
def test_what_comes_out_right_is_not(config: dict[str, Any]) -> None:
    assert unsupported_reason(config) is None
