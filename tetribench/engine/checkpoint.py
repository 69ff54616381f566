"""A length predictor's checkpoint as everything but torch sees it: which buckets it knows (paper section 3.3.2)."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from tetribench.core.sequence import LengthRange

HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
"""What transformers' sequence classifiers call the matrix that ends in one row for each bucket."""


def bucket_labels(granularity: int, num_buckets: int) -> list[str]:
    """The buckets as a checkpoint's `id2label` names them: `0-199`, `200-399`, ..."""
    return [f"{bucket * granularity}-{(bucket + 1) * granularity - 1}" for bucket in range(num_buckets)]


@dataclass(frozen=True, slots=True)
class PredictorCheckpoint:
    """A Hugging Face sequence classifier in a directory. Prompts are cut to their first `max_prompt_tokens`."""

    path: Path
    granularity: int
    num_buckets: int
    max_prompt_tokens: int

    def range_of(self, bucket: int) -> LengthRange:
        return LengthRange(bucket * self.granularity, (bucket + 1) * self.granularity)


def read_checkpoint(path: Path) -> PredictorCheckpoint:
    """Raises a one-line ValueError for what is no length predictor, or one whose parts do not agree."""
    if not path.is_dir():
        raise ValueError(f"prefill.predict.checkpoint={path}: there is no such directory")
    if not (path / "config.json").is_file():
        raise ValueError(f"prefill.predict.checkpoint={path}: there is no config.json in this directory")
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    granularity, max_prompt_tokens = config.get("granularity"), config.get("max_prompt_tokens")
    if not _is_count(granularity) or not _is_count(max_prompt_tokens):
        raise ValueError(
            f"prefill.predict.checkpoint={path}: its config.json must have a granularity and max_prompt_tokens of at "
            f"least 1, as task=train_predictor writes them; it has {granularity} and {max_prompt_tokens}"
        )
    labels = [label for _, label in sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))]
    if not labels or labels != bucket_labels(granularity, len(labels)):
        raise ValueError(
            f"prefill.predict.checkpoint={path}: its id2label ({', '.join(map(str, labels)) or 'none'}) is not the "
            f"buckets of its granularity {granularity}"
        )
    num_rows = _num_head_rows(path / "model.safetensors")
    if num_rows != len(labels):
        raise ValueError(
            f"prefill.predict.checkpoint={path}: its config has {len(labels)} buckets, its weights have {num_rows}"
        )
    return PredictorCheckpoint(path, granularity, len(labels), max_prompt_tokens)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 1


def _num_head_rows(weights: Path) -> int:
    """Rows of the classifier's last matrix, from the header of the file (8 bytes of length, then JSON)."""
    if not weights.is_file():
        raise ValueError(f"prefill.predict.checkpoint={weights.parent}: there is no {weights.name} in this directory")
    with weights.open("rb") as file:
        (num_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(num_bytes))
    for head in HEADS:
        if head in header:
            return int(header[head]["shape"][0])
    raise ValueError(
        f"prefill.predict.checkpoint={weights.parent}: its weights have no classifier; must be a sequence classifier"
    )
