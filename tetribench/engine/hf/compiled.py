"""Decoder layers through `torch.compile`: what lies between attention and products becomes fewer, larger kernels."""

import os
from shutil import which
from typing import Any

_COMPILERS = ("g++", "clang++")


def why_not_compiled(is_cuda: bool) -> str | None:
    """The reason why nothing can be compiled; None where nothing is known against it."""
    if is_cuda or "CXX" in os.environ or any(map(which, _COMPILERS)):
        return None
    return f"finds no C++ compiler: none of {', '.join(_COMPILERS)} is on the PATH, and CXX is not set"


def compile_layers(model: Any) -> None:
    """Each layer by itself, for any number of rows, in two parts: attention, which runs between them, is as without.

    It is compiled in the first passes, which are those that warm an engine up.
    """
    import torch
    from transformers import AttentionInterface

    from tetribench.engine.hf.attention.hook import ATTENTION_NAME, paged_attention

    apart: Any = torch.compiler.disable(paged_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(ATTENTION_NAME, apart)
    for layer in model.get_decoder().layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
