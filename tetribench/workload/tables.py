"""Rows of CSV, JSON lines and Parquet files, one at a time, so that the start of a long trace is read quickly."""

import csv
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

Row = dict[str, Any]


def check_table(option: str, path: str) -> None:
    """The file is there, and its name says that it is of a kind that can be read."""
    if not Path(path).is_file():
        raise ValueError(f"{option}={path}: there is no such file")
    if not path.endswith(tuple(READERS)):
        raise ValueError(f"{option}={path}: must end in one of {', '.join(READERS)}")


def read_rows(option: str, path: str) -> Iterator[Row]:
    """The rows in order, by column name. Raises ValueError where the file is damaged."""
    reader = next(reader for ending, reader in READERS.items() if path.endswith(ending))
    try:
        yield from reader(path)
    except (OSError, EOFError, ValueError, csv.Error) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{option}={path}: cannot be read: {reason}") from error


def _open(path: str) -> TextIO:
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return Path(path).open(encoding="utf-8-sig", newline="")


def _read_csv(path: str) -> Iterator[Row]:
    with _open(path) as file:
        yield from csv.DictReader(file)


def _read_jsonl(path: str) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(Row)
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"line {number}: {error}") from error


def _read_parquet(path: str) -> Iterator[Row]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


READERS: dict[str, Callable[[str], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".parquet": _read_parquet,
}
