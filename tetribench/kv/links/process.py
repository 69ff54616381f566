"""Whether the process at the other end of a mapping still lives: its memory alone would not tell."""

import os
import select


class PeerProcess:
    """A process of this machine, by its id; this very one counts as alive. Raises ProcessLookupError if it is gone."""

    def __init__(self, pid: int) -> None:
        self._descriptor = None if pid == os.getpid() else os.pidfd_open(pid)

    def check(self) -> None:
        """Raises ConnectionError when it has ended, reaped or not."""
        if self._descriptor is None:
            return
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(self._descriptor, select.POLLIN)
        if poll.poll(0):
            raise ConnectionError("its process has ended")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
