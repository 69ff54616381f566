"""The report of a length predictor: one self-contained page, in the house style of a run's report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tetribench.report.figures import Drawn, keep
from tetribench.report.html import render
from tetribench.report.quantities import DASH
from tetribench.report.style import drawing
from tetribench.report.tables import Cell, Row, Table
from tetribench.training.figures import accuracy_figure, calibration_figure, confusion_figure, length_figure

GUESSES = {
    "classifier": "classifier",
    "majority": "most frequent bucket",
    "prompt_length": "prompt length only",
    "source": "most frequent of its source",
}
"""What is compared, by its name in metrics.json; only the first reads the prompt."""

PAPER_ACCURACY = {100: 0.589, 200: 0.749, 400: 0.85}
"""Printed in the paper's section 3.3.2, for its own model and prompts."""

GUESS_NOTE = (
    "“Most frequent bucket” gives every prompt the commonest bucket of the training prompts. “Prompt length only” is a "
    "multinomial logistic regression on the logarithm of the prompt's number of tokens and its square. “Most frequent "
    "of its source” is told which file the prompt is from. Brackets are 95 % intervals (Wilson)."
)
CAPTIONS = {
    "accuracy": "Share of evaluation prompts whose bucket is predicted rightly. Whiskers are 95 % intervals.",
    "confusion": "Number of evaluation prompts; shades are shares of a row. The diagonal is right.",
    "calibration": "Evaluation prompts by the classifier's confidence: the probability of the bucket chosen.",
    "lengths": "All prompts, training and evaluation. Responses that reach the limit were cut there.",
}


def write_page(document: dict[str, Any], folder: Path) -> None:
    """Draw figures/ and report.html from metrics.json's content."""
    page = render(
        "predictor.html.jinja",
        title=f"Length predictor for {document['model']}",
        sentence=_sentence(document),
        cautions=list(_cautions(document)),
        accuracy=_accuracy_table(document),
        sources=_source_table(document),
        training=_training_table(document),
        figures=_figures(document, folder),
        facts=list(_facts(document)),
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _figures(document: dict[str, Any], folder: Path) -> list[Drawn]:
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    results = document["granularities"]
    subtitle = (
        f"{document['model']} · {document['num_evaluation']:,} evaluation prompts · backbone {document['backbone']}"
    )
    everyone = f"{document['model']} · {document['num_prompts']:,} prompts"
    with drawing():
        drawn = {
            "accuracy": accuracy_figure(results, GUESSES, subtitle),
            "confusion": confusion_figure(results, subtitle),
            "calibration": calibration_figure(results, subtitle),
            "lengths": length_figure(document["output_tokens"], document["max_output_tokens"], everyone),
        }
        return [keep(figure, figures, stem, CAPTIONS[stem]) for stem, figure in drawn.items()]


def _sentence(document: dict[str, Any]) -> str:
    parts = []
    for result in document["granularities"]:
        own, most_frequent = result["accuracy"]["classifier"], result["accuracy"]["majority"]
        parts.append(f"{own:.1%} at {result['granularity']} tokens (most frequent bucket: {most_frequent:.1%})")
    return f"The share of unseen prompts whose bucket of response length is predicted rightly: {', '.join(parts)}."


def _cautions(document: dict[str, Any]) -> Iterable[str]:
    num_capped, limit = document["num_capped"], document["max_output_tokens"]
    yield (
        f"{num_capped / document['num_prompts']:.0%} of the responses were cut at {limit} tokens; they all count "
        f"as the bucket that {limit} falls into, which makes it large and easy."
    )
    yield "One split and one seed: the intervals are about the choice of evaluation prompts only."
    yield (
        f"The paper fine-tuned on 75,000 prompts, here are {document['num_train']:,}; its model, prompts and lengths "
        f"were others, so its accuracies are no target."
    )
    if document["backbone"] == "opt_125m":
        yield "The backbone is OPT-125M in shape only: its weights were drawn at random, and nothing was pre-trained."


def _accuracy_table(document: dict[str, Any]) -> Table:
    columns = (*GUESSES.values(), "the paper")
    table = Table("Accuracy", ("granularity", "buckets"), columns, note=GUESS_NOTE)
    for result in document["granularities"]:
        cells = [_share_cell(result, name) for name in GUESSES]
        paper = PAPER_ACCURACY.get(result["granularity"])
        cells.append(Cell(DASH if paper is None else f"{paper:.1%}", paper))
        table.rows.append(Row((f"{result['granularity']} tokens", str(result["num_buckets"])), tuple(cells)))
    return table


def _share_cell(result: dict[str, Any], name: str) -> Cell:
    share, (low, high) = result["accuracy"][name], result["interval"][name]
    return Cell(f"{share:.1%}", share, below=Cell(f"[{low:.0%}, {high:.0%}]"))


def _source_table(document: dict[str, Any]) -> Table:
    results = document["granularities"]
    columns = tuple(f"at {result['granularity']}" for result in results)
    table = Table("The classifier's accuracy by source", ("source", "evaluation prompts"), columns)
    for source, first in results[0]["by_source"].items():
        shares = [result["by_source"][source]["accuracy"] for result in results]
        cells = tuple(Cell(f"{share:.0%}", share) for share in shares)
        table.rows.append(Row((source, str(first["num_prompts"])), cells))
    return table


def _training_table(document: dict[str, Any]) -> Table:
    epochs = tuple(f"loss, epoch {number}" for number in range(1, document["epochs"] + 1))
    note = (
        "Mean loss in nats, in training and below it on validation prompts, which chose the epoch. They are a part of "
        "the training prompts; the evaluation prompts chose nothing."
    )
    table = Table("Training", ("granularity",), ("parameters", "time", *epochs), note=note)
    for result in document["granularities"]:
        cells = [Cell(f"{result['num_parameters'] / 1e6:.1f} million"), Cell(f"{result['train_s']:,.0f} s")]
        for loss in result["losses"]:
            cells.append(Cell(f"{loss['train']:.3f}", loss["train"], below=Cell(f"{loss['validation']:.3f}")))
        table.rows.append(Row((str(result["granularity"]),), tuple(cells)))
    return table


def _facts(document: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield (
        "prompts",
        f"{document['num_prompts']:,}: {document['num_train']:,} to train, {document['num_evaluation']:,} not",
    )
    yield "split", f"by prompt, within each source, seed {document['seed']}"
    yield (
        "labels",
        f"lengths of {document['model']}'s own greedy responses, at most {document['max_output_tokens']} tokens",
    )
    for name in ("backbone", "epochs", "learning_rate", "batch_size", "max_prompt_tokens", "seed"):
        yield name.replace("_", " "), str(document[name])
    yield "commit", str(document["environment"].get("commit", "unknown"))
    yield "packages", ", ".join(f"{name} {version}" for name, version in document["environment"]["packages"].items())
