"""Linear layers on the CPU by oneDNN, with weights laid out once as its products read them.

torch's own lay them out within each call: a tenth of the time of a chunk's products and half of that of a few rows'
(`tests/benchmarks/engine.md`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tetribench.engine.hf.schema import Linear

_EXPECTED_ROWS = 16
"""The layout for so many is the best one from 1 to 512, too; the one for a single row is slower from 4 on."""


class PackedLinear(nn.Module):
    """What `whole` computes; its weights are given back with it, unless something else, an embedding, shares them."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(whole.weight, _EXPECTED_ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = whole.bias

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
        return outputs


def pack_linear_layers(model: PreTrainedModel) -> None:
    """Raises ValueError where this torch comes without oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise ValueError(f"engine.linear={Linear.onednn.value}: this torch comes without it; legal here is torch")
    parent: Any
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child))
