"""Fine-tuning of a length predictor: a plain loop of AdamW with a linear warm-up and decay."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    OPTConfig,
    OPTForSequenceClassification,
    get_linear_schedule_with_warmup,
)

from tetribench.engine.checkpoint import bucket_labels
from tetribench.engine.hf.predictor import Classifier
from tetribench.engine.hf.quiet import quiet

WARM_UP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to fine-tune. `backbone` is a directory or hub id; `is_random` keeps its tokenizer, and draws the weights of
    an OPT-125M instead of loading any."""

    backbone: str
    is_random: bool
    granularity: int
    num_buckets: int
    max_prompt_tokens: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """Prompts and the buckets of their responses."""

    prompts: Sequence[str]
    buckets: Sequence[int]


def fine_tune(
    recipe: Recipe, train: Labelled, validation: Labelled, on_epoch: Callable[[int, float, float], None]
) -> Classifier:
    """A classifier of prompts into buckets: that of the epoch with the smallest loss on `validation`.

    `on_epoch` is called with each epoch's number, its mean loss in training and that on `validation`.
    """
    torch.manual_seed(recipe.seed)
    classifier = _untrained(recipe)
    model = classifier.model
    labels = torch.tensor(train.buckets)
    best_loss, best_weights = float("inf"), model.state_dict()
    num_steps = recipe.epochs * -(-len(train.prompts) // recipe.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    schedule: Any = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
        optimizer, int(WARM_UP_SHARE * num_steps), num_steps
    )
    rng = np.random.default_rng(recipe.seed)
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        losses = []
        for chosen in _batches([len(prompt) for prompt in train.prompts], recipe.batch_size, rng):
            encoded = classifier.encode([train.prompts[index] for index in chosen])
            loss = model(**encoded, labels=labels[chosen]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        loss = _loss(classifier, validation, recipe.batch_size)
        on_epoch(epoch, sum(losses) / len(losses), loss)
        if loss < best_loss:
            best_loss, best_weights = loss, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_weights)
    return classifier


def _loss(classifier: Classifier, labelled: Labelled, batch_size: int) -> float:
    """Mean cross-entropy, in nats."""
    starts = range(0, len(labelled.prompts), batch_size)
    parts = [classifier.probabilities(labelled.prompts[start : start + batch_size]) for start in starts]
    of_truth = np.concatenate(parts)[np.arange(len(labelled.prompts)), labelled.buckets]
    return float(-np.log(of_truth).mean())


def _batches(lengths: list[int], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Every index once, prompts of like length together, which saves padding; batches come in a random order."""
    jittered = np.array(lengths) * rng.uniform(0.8, 1.25, len(lengths))
    ordered = np.argsort(jittered, kind="stable").tolist()
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    for index in rng.permutation(len(batches)).tolist():
        yield batches[index]


def _untrained(recipe: Recipe) -> Classifier:
    """The backbone with a new head. Raises ValueError where it cannot be loaded."""
    labels = dict(enumerate(bucket_labels(recipe.granularity, recipe.num_buckets)))
    facts: dict[str, Any] = {
        "num_labels": recipe.num_buckets,
        "id2label": labels,
        "label2id": {label: bucket for bucket, label in labels.items()},
        "granularity": recipe.granularity,
        "max_prompt_tokens": recipe.max_prompt_tokens,
    }
    model: Any
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(recipe.backbone)
            if recipe.is_random:
                model = OPTForSequenceClassification(_opt_125m(tokenizer, facts))
            else:
                config = AutoConfig.from_pretrained(recipe.backbone, **facts)
                for name in ("granularity", "max_prompt_tokens"):
                    setattr(config, name, facts[name])
                config.pad_token_id = tokenizer.pad_token_id
                model = AutoModelForSequenceClassification.from_pretrained(
                    recipe.backbone, config=config, ignore_mismatched_sizes=True
                )  # the head of another granularity is drawn anew
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"task.backbone={recipe.backbone}: cannot be loaded as a classifier: {reason}") from error
    max_positions = getattr(model.config, "max_position_embeddings", recipe.max_prompt_tokens)
    if recipe.max_prompt_tokens > max_positions:
        raise ValueError(
            f"task.max_prompt_tokens={recipe.max_prompt_tokens}: {recipe.backbone} has {max_positions} positions; must "
            f"be at most that"
        )
    return Classifier(model.float(), tokenizer, recipe.max_prompt_tokens)


def _opt_125m(tokenizer: Any, facts: dict[str, Any]) -> OPTConfig:
    """The paper's predictor but for its vocabulary, which is that of the tokenizer at hand."""
    return OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        word_embed_proj_dim=768,
        ffn_dim=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **facts,
    )


def save(classifier: Classifier, path: Path) -> None:
    """An ordinary Hugging Face checkpoint, tokenizer included."""
    path.mkdir(parents=True, exist_ok=True)
    with quiet():
        classifier.model.save_pretrained(path)
        classifier.tokenizer.save_pretrained(path)
