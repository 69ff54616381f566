"""Modules that take the place of a model's linear layers."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tetribench.engine.hf.linear.operators import in_panels, linear


class PackedLinear(nn.Module):
    """What `whole` computes; its weights are given back with it, unless something else, an embedding, shares them."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(in_panels(whole.weight.detach()), requires_grad=False)
        bias = whole.weight.new_zeros(whole.out_features) if whole.bias is None else whole.bias.detach()
        self.bias = nn.Parameter(in_panels(bias), requires_grad=False)
        self.in_features, self.out_features = whole.in_features, whole.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs.new_empty((*inputs.shape[:-1], self.out_features))
        linear(inputs.contiguous(), self.weight, self.bias, outputs)
        return outputs


@torch.inference_mode()
def pack_linear_layers(model: PreTrainedModel) -> None:
    """Raises RuntimeError with the C compiler's complaint."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child))
