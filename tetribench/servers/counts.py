"""What a vLLM server says of itself: its `/metrics` in Prometheus' text format, and its configuration."""

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import msgspec

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

CACHE = "vllm:cache_config_info"


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens and preemptions since the server was started, and the share of its KV memory that is used now."""

    num_prompt_tokens: int
    num_output_tokens: int
    num_preemptions: int
    kv_used_share: float

    def since(self, earlier: "Counts") -> dict[str, Any]:
        return {
            "num_prompt_tokens": self.num_prompt_tokens - earlier.num_prompt_tokens,
            "num_output_tokens": self.num_output_tokens - earlier.num_output_tokens,
            "num_preemptions": self.num_preemptions - earlier.num_preemptions,
            "kv_used_share": self.kv_used_share,
        }


def parse_counts(text: str) -> Counts | None:
    """None where these are not the metrics of a vLLM server."""
    sums: defaultdict[str, float] = defaultdict(float)
    for name, _, value in _samples(text):
        sums[name] += value
    if "vllm:generation_tokens_total" not in sums:
        return None
    return Counts(
        num_prompt_tokens=int(sums["vllm:prompt_tokens_total"]),
        num_output_tokens=int(sums["vllm:generation_tokens_total"]),
        num_preemptions=int(sums["vllm:num_preemptions_total"]),
        kv_used_share=sums["vllm:kv_cache_usage_perc"],
    )


def parse_cache(text: str) -> dict[str, Any]:
    """`num_blocks`, `block_size` and `prefix_caching` of its KV memory; what it does not say is missing."""
    labels = next((labels for name, labels, _ in _samples(text) if name == CACHE), {})
    found: dict[str, Any] = {}
    for fact, label in {"num_blocks": "num_gpu_blocks", "block_size": "block_size"}.items():
        if labels.get(label, "").isdigit():
            found[fact] = int(labels[label])
    if "enable_prefix_caching" in labels:
        found["prefix_caching"] = labels["enable_prefix_caching"] == "True"
    return found


def parse_config(document: bytes) -> dict[str, Any]:
    """Facts of `/server_info`, which vLLM has in its development mode; what it does not say is missing."""
    config = msgspec.json.decode(document, type=dict[str, Any]).get("vllm_config")
    if not isinstance(config, dict):
        return {}
    model, scheduler = config.get("model_config", {}), config.get("scheduler_config", {})
    found = {
        "dtype": str(model.get("dtype", "")).removeprefix("torch.") or None,
        "max_context_tokens": model.get("max_model_len"),
        "max_num_seqs": scheduler.get("max_num_seqs"),
        "max_num_batched_tokens": scheduler.get("max_num_batched_tokens"),
        "chunked_prefill": scheduler.get("enable_chunked_prefill"),
        "device": config.get("device_config", {}).get("device"),
    }
    return {fact: value for fact, value in found.items() if value is not None}


def _samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    found = []
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is not None:
            name, labels, value = match.groups()
            found.append((name, dict(_LABEL.findall(labels or "")), float(value)))
    return found
