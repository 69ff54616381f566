"""What is wrong with a configuration, in one line that names the option and what is legal."""

import difflib
import re

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tetribench.config import conf_folder, options_of

_NO_SUCH_KEY = re.compile(r"Could not (?:override|append to config|delete).*?'([\w.]+)'")
_NO_SUCH_OPTION = re.compile(r"Could not find '([\w/]+)/(\w+)'")
_NO_SUCH_GROUP = re.compile(r"Could not override '(\w+(?='\. No match in the defaults list)|\w+/[\w/]+)'")
_MISSING = re.compile(r"Missing mandatory value: ([\w.]+)")
_BAD_VALUE = re.compile(r"Error merging override (\S+)")


NEW_KEYS = "slo.classes."
"""Below this the user names the keys."""


def explain(error: Exception, overrides: list[str]) -> str:
    """One line for `error`, which `overrides` (of the command line) have caused."""
    text = str(error)
    if match := _NO_SUCH_OPTION.search(text):
        group, name = match.groups()
        return f"{group}={name}: no such option; there are {', '.join(options_of(group))}"
    if match := _BAD_VALUE.search(text):
        reason = _first_line(error.__cause__) if error.__cause__ else "not a legal value"
        return f"{match.group(1)}: {reason}"
    if match := _NO_SUCH_GROUP.search(text):
        group = match.group(1)
        if (conf_folder() / group).is_dir():
            return f"{group}: none is chosen beforehand; type +{group}=NAME ({', '.join(options_of(group))})"
        return f"{group}: no such group of options; tetribench --help lists them"
    if match := _NO_SUCH_KEY.search(text):
        return _no_such_key(match.group(1), overrides)
    if "viable alternative" in text or "mismatched input" in text or "extraneous input" in text or "Lexer" in text:
        return f"{_first_line(error)}; quote lists and spaces, as in 'systems=[tetri,vllm_like]'"
    if match := _MISSING.search(text):
        return f"{match.group(1)}: must be given, as in {match.group(1)}=VALUE"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return text
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    """The first line that is the reason, without the location that Hydra puts before it."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not re.fullmatch(r"In '.*':.*", line)), type(error).__name__)


def _no_such_key(key: str, overrides: list[str]) -> str:
    """Names the keys that stand where the misspelt one was looked for."""
    if key.startswith(NEW_KEYS):
        return f"{key}: what is new takes a plus; type +{key}=VALUE"
    parent, _, name = key.rpartition(".")
    chosen = [override for override in overrides if _is_choice(override)]
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose("config", chosen)
    except (HydraException, OmegaConfBaseException):
        return f"{key}: no such option"
    finally:
        GlobalHydra.instance().clear()
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return f"{key}: no such option"
    legal = sorted(str(other) for other in node if other != "_target_")
    close = difflib.get_close_matches(name, legal, 1)
    guess = f"did you mean {parent + '.' if parent else ''}{close[0]}? " if close else ""
    return f"{key}: no such option; {guess}{parent or 'the root'} has {', '.join(legal) or 'no options'}"


def refuse_added_keys(config: DictConfig) -> None:
    """`+key=value` adds a key where Hydra would otherwise refuse it; nothing here takes keys that it does not know."""
    kind = OmegaConf.get_type(config)
    known = getattr(kind, "__dataclass_fields__", None)
    for key in map(str, config):
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if known is not None and key not in known:
            raise ValueError(f"+{config._get_full_key(key)}: no such option; it has {', '.join(sorted(known))}")
        if isinstance(config[key], DictConfig):
            refuse_added_keys(config[key])


def _is_choice(override: str) -> bool:
    """Whether it chooses an option of a group, which decides the keys there are."""
    group, _, name = override.lstrip("+").partition("=")
    return name in options_of(group.partition("@")[0])
