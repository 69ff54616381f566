"""What a person watches while a system serves: how many requests have ended, and how many tokens came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress(console: Console, system: str, num_requests: int | None) -> Iterator[Callable[[int, int], None]]:
    """A live line for one system on a terminal, nothing elsewhere; yields what to call with (ended, tokens).

    `num_requests` is None where nobody knows it before.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("requests, {task.fields[num_tokens]} tokens"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{system}: starting", total=num_requests, num_tokens=0)

        def update(num_ended: int, num_tokens: int) -> None:
            bar.update(task, description=f"{system}: serving", completed=num_ended, num_tokens=num_tokens)

        yield update
