"""Prompts for clients that want text, and a tokenizer that counts a word of it as a token."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.benchmarks.clients.load import NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS

NUM_WORDS = 1000


def save_tokenizer(folder: Path) -> None:
    """As Hugging Face's `AutoTokenizer` reads it."""
    vocabulary = {"<unk>": 0} | {f"w{number}": number + 1 for number in range(NUM_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made: Any = PreTrainedTokenizerFast
    made(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)


def save_prompts(path: Path, num_requests: int) -> None:
    """JSON lines; each says the same under the names that GuideLLM, AIPerf and SGLang have for it."""
    with path.open("w") as file:
        for id in range(num_requests):
            prompt = " ".join(f"w{(7 * id + position) % NUM_WORDS}" for position in range(NUM_PROMPT_TOKENS))
            named = {
                "prompt": prompt,
                "output_tokens_count": NUM_OUTPUT_TOKENS,
                "text": prompt,
                "conversations": [{"content": prompt}, {"content": "w7 " * NUM_OUTPUT_TOKENS}],
            }
            print(json.dumps(named), file=file)
