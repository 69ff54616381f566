"""A classifier small enough to train in a test, with a tokenizer of a few words."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tetribench.engine.checkpoint import bucket_labels
from tetribench.engine.hf.quiet import quiet

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "short", "long", "story", "please", "prompt", "number"]


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=words, **names)  # type: ignore[no-untyped-call]
    return made


def config() -> BertConfig:
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )


def backbone(path: Path) -> str:
    """An encoder to fine-tune; its own head is replaced."""
    return str(checkpoint(path, 10, 2))


def checkpoint(path: Path, granularity: int = 10, num_buckets: int = 3) -> Path:
    """A length predictor with random weights."""
    facts = config()
    facts.id2label = dict(enumerate(bucket_labels(granularity, num_buckets)))
    facts.granularity, facts.max_prompt_tokens = granularity, 16
    with quiet():
        BertForSequenceClassification(facts).save_pretrained(path)
        tokenizer().save_pretrained(path)
    return path
