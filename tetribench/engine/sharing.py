"""How the instances that have one device together get their turns on it."""

from enum import Enum

MPS_CONTROL = "nvidia-cuda-mps-control"
"""The program of NVIDIA's driver that starts MPS, and talks to it."""


class Sharing(Enum):
    """Of the instances on a device; whatever the mode, they have its memory bandwidth together.

    Two instances that share a device come near two devices of half the size, which is not the paper's set-up. No mode
    has yet run on a GPU.
    """

    none = "none"
    """Each instance has a device of its own."""
    time_slicing = "time_slicing"
    """One computes at a time: processes on a core or on a GPU as they come, and in virtual time."""
    mps = "mps"
    """Processes on a GPU compute at the same time, under a daemon (MPS) that is started and stopped with them."""
    green_contexts = "green_contexts"
    """One process, with an engine thread for each of its instances, on multiprocessors of a GPU that no other has."""

    @property
    def is_in_one_process(self) -> bool:
        """The instances on a device live in one process."""
        return self is Sharing.green_contexts

    @property
    def in_words(self) -> str:
        """For the record of a run."""
        if self is Sharing.none:
            return "none"
        name = "MPS" if self is Sharing.mps else self.value.replace("_", " ")
        return f"{name}, memory bandwidth shared"
