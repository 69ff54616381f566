"""What unmodified transformers models call in place of their own attention.

Rows of one forward pass are packed into a batch of one: decoding sequences first, then prefill chunks, then padding.
The attention name has no mask function registered, so transformers builds no mask for it and passes None.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from tetribench.engine.hf.attention.backend import layer_written, paged_rows

ATTENTION_NAME = "tetri_paged"


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Write keys and values `[1, kv_heads, rows, size]`, then attend; returns `[1, rows, heads, size]`."""
    assert attention_mask is None and softcap is None and s_aux is None, "refused before the model was loaded"
    rows = paged_rows.get()
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    rows.plan.write(layer, keys, values)

    tell = layer_written.get()
    if tell is not None:
        tell(layer)

    scale = queries.shape[2] ** -0.5 if scaling is None else scaling
    parts = [rows.plan.attend(layer, queries, keys, values, scale)] if rows.num_used else []
    if rows.num_used < queries.shape[0]:  # a padding row sees itself only: its output is its value
        parts.append(values[rows.num_used :].repeat_interleave(queries.shape[1] // keys.shape[1], dim=1))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), None


AttentionInterface.register(ATTENTION_NAME, paged_attention)
