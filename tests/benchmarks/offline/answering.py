"""The protocol between the benchmark and an engine: a line of JSON with a `Work`, a line with seconds in return."""

import json
import os
import sys
from collections.abc import Callable

CORE = 0
"""All engines get the same one, in turns."""


Seconds = Callable[[int, int, int], float]


def answer(start: Callable[[], Seconds]) -> None:
    """Start an engine and measure until there are no more lines. What it prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.sched_setaffinity(0, {CORE})
    seconds = start()
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        taken_s = seconds(work["batch"], work["num_prompt_tokens"], work["num_output_tokens"])
        print(json.dumps(taken_s), file=replies, flush=True)
