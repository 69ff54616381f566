"""Where the option files are, and what they are called."""

from pathlib import Path


def conf_folder() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    packed = package / "conf"
    return packed if packed.is_dir() else package.parent / "conf"


def options_of(group: str) -> list[str]:
    """Names of the option files of a group."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
