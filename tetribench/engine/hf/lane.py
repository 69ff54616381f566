"""Where on its device an engine computes: whatever thread works for it, launches there."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from tetribench.engine.hf.green.contexts import GreenContext


class Lane:
    """A whole device, and the stream on which every thread begins."""

    num_multiprocessors: int | None = None
    """Of a GPU, where this is not all of it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def enter(self) -> None:
        """This thread launches here from now on."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def launching(self) -> AbstractContextManager[Any]:
        """This thread launches here meanwhile, on a GPU that is the current one already."""
        return nullcontext()

    def new_stream(self) -> torch.cuda.Stream:
        """One beside it, on the same multiprocessors."""
        stream: torch.cuda.Stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return stream

    def recording_stream(self) -> torch.cuda.Stream:
        """One on which graphs can be recorded, which the stream that every thread begins with is not for."""
        return self.new_stream()


class GreenLane(Lane):
    """A part of a GPU, and a stream of it. A graph runs where it was recorded: on the stream itself."""

    def __init__(self, device: torch.device, context: GreenContext) -> None:
        super().__init__(device)
        self.num_multiprocessors = context.num_multiprocessors
        self._context = context
        self._stream = self.new_stream()

    def enter(self) -> None:
        super().enter()
        torch.cuda.set_stream(self._stream)

    def launching(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream)

    def new_stream(self) -> torch.cuda.Stream:
        handle = self._context.new_stream()
        stream: torch.cuda.Stream = torch.cuda.ExternalStream(handle, self.device)  # type: ignore[no-untyped-call]
        return stream

    def recording_stream(self) -> torch.cuda.Stream:
        return self._stream
