"""The torch model behind a `Model`, with the paged attention in place of its own."""

import math
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from tetribench.engine.hf.attention.hook import ATTENTION_NAME
from tetribench.engine.hf.quiet import quiet
from tetribench.engine.hf.supported import unsupported_reason
from tetribench.engine.model import Architecture, Model

_INIT_GAIN = 1.5
"""Random weights have the standard deviation `gain / sqrt(hidden size)`: what 0.02, the usual one, is for OPT-13B.

With 0.02 in a narrow model the context hardly matters, responses repeat one token, and equal tokens prove little.
"""


def load_model(model: Model, device: torch.device, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """The model on its device, ready to infer.

    Random weights are the same in every process for the same seed and kind of device. Raises a one-line ValueError for
    models that the paged attention would compute wrongly.
    """
    loaded: Any
    with quiet():
        loaded = _random(model, device, dtype, seed) if model.is_random else _pretrained(model, dtype)
        if not loaded._supports_attention_backend:
            raise ValueError(f"model={model.name}: its attention does not go through transformers' AttentionInterface")
        _check_shape(model, loaded.config.get_text_config())
        loaded.set_attn_implementation(ATTENTION_NAME)
    ready: PreTrainedModel = loaded.to(device).eval().requires_grad_(False)
    return ready


def stop_token_ids(model: Model, loaded: PreTrainedModel) -> tuple[int, ...]:
    """Tokens that end a response; none where weights, and so tokens, mean nothing."""
    if model.is_random:
        return ()
    generation = loaded.generation_config
    found = generation.eos_token_id if generation is not None else None
    if found is None:
        found = loaded.config.eos_token_id
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (int(found),)


def _random(model: Model, device: torch.device, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """On the CPU drawn in float32, then rounded; on CUDA drawn there, as a large model takes minutes on the CPU."""
    torch.manual_seed(seed)
    on_cuda = device.type == "cuda"
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype if on_cuda else torch.float32)
    try:
        with device:
            loaded = _opt(model) if model.architecture is Architecture.opt else _llama(model)
    finally:
        torch.set_default_dtype(default_dtype)
    for parameter in loaded.parameters():  # not .to(dtype): it would round the rotary frequencies as well
        parameter.data = parameter.data.to(dtype)
    return loaded


def _opt(model: Model) -> PreTrainedModel:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        word_embed_proj_dim=model.hidden_size,
        ffn_dim=model.ffn_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        max_position_embeddings=model.max_context_tokens,
        do_layer_norm_before=True,
        dropout=0.0,
        init_std=_INIT_GAIN / math.sqrt(model.hidden_size),
    )
    return OPTForCausalLM(config)


def _llama(model: Model) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads,
        max_position_embeddings=model.max_context_tokens,
        tie_word_embeddings=False,
        initializer_range=_INIT_GAIN / math.sqrt(model.hidden_size),
    )
    return LlamaForCausalLM(config)


def _pretrained(model: Model, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    files: dict[str, Any] = {} if model.gguf_file is None else {"gguf_file": model.gguf_file}
    config = AutoConfig.from_pretrained(model.location(), **files)
    reason = unsupported_reason(config.to_dict())
    if reason is not None:
        raise ValueError(f"model={model.name}: {reason}")
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model.location(), dtype=dtype, **files)
    return loaded


def _check_shape(model: Model, config: PreTrainedConfig) -> None:
    """The pool is laid out by the declared shape."""
    shape = model.shape()
    declared = (shape.num_layers, shape.num_kv_heads, shape.head_size)
    num_heads = config.num_attention_heads
    found = (
        config.num_hidden_layers,
        getattr(config, "num_key_value_heads", None) or num_heads,
        getattr(config, "head_dim", None) or config.hidden_size // num_heads,
    )
    if found != declared:
        raise ValueError(
            f"model={model.name}: declares (num_layers, num_kv_heads, head size) = {declared}, its files have {found}"
        )
