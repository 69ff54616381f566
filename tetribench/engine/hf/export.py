"""Writes the weights of an engine where others can load them: `python -m tetribench.engine.hf.export FOLDER`.

The engine comes pickled on stdin. A process of its own keeps torch out of the one that measures.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from tetribench.engine.hf.models import load_model
from tetribench.engine.hf.quiet import quiet
from tetribench.engine.hf.schema import HFEngine

OWN_ATTENTION = "eager"
"""What a checkpoint may name: the paged attention is known here only."""


def export(engine: HFEngine, folder: Path) -> None:
    """A Hugging Face checkpoint, in the engine's dtype, of the very weights that the engine draws or loads."""
    loaded: Any = load_model(
        engine.model, torch.device("cpu"), getattr(torch, engine.resolved_dtype().value), engine.seed
    )
    loaded.set_attn_implementation(OWN_ATTENTION)
    if engine.model.gguf_file is not None:  # transformers takes GGUF for a quantised model, which it would not save
        loaded.hf_quantizer, loaded.is_quantized = None, False
        del loaded.config.quantization_config
    with quiet():
        loaded.save_pretrained(folder)


def main() -> None:
    torch.set_num_threads(1)
    export(pickle.load(sys.stdin.buffer), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
