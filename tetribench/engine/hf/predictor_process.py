"""A classifier in a process of its own: `python -m tetribench.engine.hf.predictor_process CHECKPOINT CORE`.

Reads lists of prompts from stdin, a line of JSON each, and answers with the list of their buckets. Ends with stdin,
however the other end went.
"""

import os
import signal
import sys
from pathlib import Path

import msgspec
import torch

from tetribench.engine.hf.predictor import load_classifier


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    path, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    torch.set_num_threads(1)
    classifier = load_classifier(Path(path))
    for line in sys.stdin.buffer:
        prompts = msgspec.json.decode(line, type=list[str])
        sys.stdout.buffer.write(msgspec.json.encode(classifier.buckets(prompts) if prompts else []) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
