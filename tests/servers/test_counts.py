"""What a vLLM server says of itself, as text."""

import msgspec

from tetribench.servers.counts import Counts, parse_cache, parse_config, parse_counts

METRICS = """# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 40.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 2.0
vllm:generation_tokens_total{engine="0",model_name="m"} 7.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.79588e+09
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:cache_config_info{block_size="128",enable_prefix_caching="False",layers="[]",num_gpu_blocks="512"} 1.0
"""


def test_counts_are_sums_over_engines() -> None:
    assert parse_counts(METRICS) == Counts(42, 7, 3, 0.25)


def test_counts_are_differences() -> None:
    earlier = Counts(40, 5, 0, 0.9)
    assert Counts(42, 7, 3, 0.25).since(earlier) == {
        "num_prompt_tokens": 2,
        "num_output_tokens": 2,
        "num_preemptions": 3,
        "kv_used_share": 0.25,
    }


def test_other_servers_count_nothing() -> None:
    assert parse_counts("") is None and parse_counts("sglang:num_requests 3\n") is None
    assert parse_cache("no metrics at all") == {}


def test_the_kv_memory() -> None:
    assert parse_cache(METRICS) == {"num_blocks": 512, "block_size": 128, "prefix_caching": False}
    assert parse_cache('vllm:cache_config_info{num_gpu_blocks="None"} 1.0') == {}


def test_the_configuration() -> None:
    config = {
        "model_config": {"dtype": "torch.float32", "max_model_len": 2048},
        "scheduler_config": {"max_num_seqs": 128, "enable_chunked_prefill": True},
        "device_config": {"device": "cpu"},
    }
    assert parse_config(msgspec.json.encode({"vllm_config": config})) == {
        "dtype": "float32",
        "max_context_tokens": 2048,
        "max_num_seqs": 128,
        "chunked_prefill": True,
        "device": "cpu",
    }
    assert parse_config(b"{}") == parse_config(b'{"vllm_config": "text"}') == {}
