"""Small arrays on their way to the device."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def upload(array: npt.NDArray[np.integer], device: torch.device) -> Tensor:
    """A tensor of `array`'s type. On CUDA the copy is only launched, from pinned memory that torch keeps until then."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
