"""Finding one's way in a run folder."""

from pathlib import Path


def slot(run: Path, system: str, repeat: int = 0) -> Path:
    """The folder of the first serving of a system."""
    return min((run / "repeats" / str(repeat)).glob(f"*-{system}"))
