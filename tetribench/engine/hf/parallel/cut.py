"""A rank's share of a model: its attention heads and its part of the feed-forward network, all else in whole.

Queries, keys, values and the way into the feed-forward network are cut by outputs, so that each rank has whole heads;
what follows them is cut by inputs, so that the ranks' outputs add up to the layer's. That is one sum after attention
and one after the feed-forward network; embeddings, norms and the head are the same everywhere.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tetribench.engine.hf.parallel.group import Group

_BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "fc1", "gate_proj", "up_proj")
_BY_INPUTS = ("out_proj", "o_proj", "fc2", "down_proj")


class SummedLinear(nn.Module):
    """A linear layer of which every rank has the weights of some inputs; the bias comes in once, after the sum."""

    def __init__(self, whole: nn.Linear, group: Group) -> None:
        super().__init__()
        self._group = group
        self.bias = whole.bias
        whole.register_parameter("bias", None)
        whole.weight.data = _own(whole.weight, 1, group)
        whole.in_features = whole.weight.shape[1]
        self.share = whole

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.share(inputs)
        self._group.add_up(outputs)
        return outputs if self.bias is None else outputs.add_(self.bias)


def cut(model: PreTrainedModel, group: Group) -> None:
    """Leave `model` its rank's share; its attention then sees that rank's heads only."""
    parent: Any
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and name in _BY_OUTPUTS:
                _cut_outputs(child, group)
            elif isinstance(child, nn.Linear) and name in _BY_INPUTS:
                setattr(parent, name, SummedLinear(child, group))
        if hasattr(parent, "q_proj") and hasattr(parent, "num_heads"):  # OPT's attention splits heads by their number
            parent.num_heads //= group.size


def _cut_outputs(whole: nn.Linear, group: Group) -> None:
    whole.weight.data = _own(whole.weight, 0, group)
    if whole.bias is not None:
        whole.bias.data = _own(whole.bias, 0, group)
    whole.out_features = whole.weight.shape[0]


def _own(whole: Tensor, dimension: int, group: Group) -> Tensor:
    """A copy, so that the whole is given back."""
    num_rows = whole.shape[dimension]
    assert num_rows % group.size == 0, "refused before the model was loaded"
    size = num_rows // group.size
    return whole.data.narrow(dimension, group.rank * size, size).clone(memory_format=torch.contiguous_format)
