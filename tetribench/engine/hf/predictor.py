"""The length predictor's classifier: from prompts to buckets of response length (paper section 3.3.2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tetribench.engine.checkpoint import read_checkpoint
from tetribench.engine.hf.quiet import quiet


class Classifier:
    """A sequence classifier and its tokenizer, ready to infer."""

    def __init__(self, model: Any, tokenizer: Any, max_prompt_tokens: int) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens

    def encode(self, prompts: Sequence[str]) -> Any:
        """A batch padded to its longest prompt. Prompts are cut at their end: what is asked mostly comes first."""
        return self.tokenizer(
            list(prompts), truncation=True, max_length=self.max_prompt_tokens, padding=True, return_tensors="pt"
        ).to(self.model.device)

    @torch.inference_mode()
    def probabilities(self, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Of each bucket for each prompt, `[prompts, buckets]`."""
        logits = self.model(**self.encode(prompts)).logits
        found: npt.NDArray[np.float64] = torch.softmax(logits.double(), dim=-1).cpu().numpy()
        return found

    def buckets(self, prompts: Sequence[str]) -> list[int]:
        """The likeliest bucket of each prompt."""
        likeliest: list[int] = self.probabilities(prompts).argmax(axis=1).tolist()
        return likeliest


def load_classifier(path: Path, device: str = "cpu") -> Classifier:
    """Raises ValueError as `read_checkpoint` does."""
    checkpoint = read_checkpoint(path)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(path).to(device)
        tokenizer = AutoTokenizer.from_pretrained(path)
    return Classifier(model, tokenizer, checkpoint.max_prompt_tokens)
