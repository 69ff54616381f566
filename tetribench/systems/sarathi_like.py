"""Sarathi-Serve (arXiv 2403.02310): replicas whose iterations hold all decodes and as much of a prompt as fits."""

from tetribench.systems.replicas import Replicas


class SarathiLike(Replicas):
    """`scheduler` is the mixed one, with a token budget small enough to keep decodes from stalling."""
