"""Text to token ids and back, for models that come with a tokenizer."""

from typing import Any

from tetribench.engine.hf.quiet import quiet
from tetribench.engine.model import Model


class HFTokenizer:
    """A model's own tokenizer and chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, chat: bool) -> list[int]:
        """`chat` makes it a user's turn, ready for the answer, where the tokenizer has a template for that."""
        if chat and self._tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            return list(self._tokenizer.encode(text, add_special_tokens=False))
        return list(self._tokenizer.encode(text))

    def decode(self, ids: list[int]) -> str:
        """Without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def load_tokenizer(model: Model) -> HFTokenizer:
    """Takes seconds for a GGUF file: the vocabulary is rebuilt from it."""
    if model.is_random:
        raise ValueError(f"workload=text needs a model with a tokenizer; model={model.name} has random weights")
    from transformers import AutoTokenizer

    files: dict[str, Any] = {} if model.gguf_file is None else {"gguf_file": model.gguf_file}
    with quiet():
        return HFTokenizer(AutoTokenizer.from_pretrained(model.location(), **files))
