"""vLLM's `LLM`, eager, on one core, in its own environment (`make peers`)."""

import os
import sys
import time

from tests.benchmarks.offline.answering import CORE, Seconds, answer
from tests.benchmarks.offline.cases import prompt_ids


def start(model_folder: str, budget: int) -> Seconds:
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": str(CORE),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=model_folder,
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=64,
        max_num_batched_tokens=budget,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def seconds(batch: int, num_prompt_tokens: int, num_output_tokens: int) -> float:
        prompts = [{"prompt_token_ids": prompt_ids(id, num_prompt_tokens)} for id in range(batch)]
        sampling = SamplingParams(temperature=0.0, max_tokens=num_output_tokens, ignore_eos=True, detokenize=False)
        started_s = time.perf_counter()
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        taken_s = time.perf_counter() - started_s
        assert [len(each.outputs[0].token_ids) for each in outputs] == [num_output_tokens] * batch
        return taken_s

    return seconds


if __name__ == "__main__":
    answer(lambda: start(sys.argv[1], int(sys.argv[2])))
