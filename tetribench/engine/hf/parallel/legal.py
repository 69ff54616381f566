"""Which models several ranks can have, told before any of them is started. No torch here."""

from tetribench.engine.model import Model

FAMILIES = ("opt", "llama")
"""Whose layers are cut by name."""


def why_not_parallel(num_ranks: int, model: Model, family: str, num_gpus: int | None) -> str | None:
    """What speaks against it and what is legal; None where nothing does. `num_gpus` is None on the CPU, where any
    number of ranks finds a core."""
    if family not in FAMILIES:
        return f"cuts models of {' and '.join(FAMILIES)} only, not {family}; must be 1"
    shape = model.shape()
    divided = {"heads": shape.num_heads, "KV heads": shape.num_kv_heads, "feed-forward values": shape.ffn_size}
    for name, number in divided.items():
        if number % num_ranks:
            return f"must divide the {number} {name} of model={model.name}"
    if num_gpus is not None and num_ranks > num_gpus:
        return f"this machine has {num_gpus} GPU(s); must be at most that"
    return None
