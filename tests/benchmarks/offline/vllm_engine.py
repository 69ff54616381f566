"""vLLM's `LLM`, eager, on one core, in its own environment (`make peers`)."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.offline.answering import CORE, Do, answer
from tests.benchmarks.offline.cases import Course, Work, prompt_ids


@contextmanager
def start(model_folder: str, budget: int) -> Iterator[Do]:
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
    core = engine.llm_engine.engine_core
    next_outputs, iterations = core.get_output, []

    def get_output() -> Any:
        found = next_outputs()
        iterations.append((time.perf_counter(), [(one.request_id, len(one.new_token_ids)) for one in found.outputs]))
        return found

    core.get_output = get_output

    def do(work: Work) -> Course:
        prompts = [{"prompt_token_ids": prompt_ids(id, work.num_prompt_tokens)} for id in range(work.batch)]
        sampling = SamplingParams(temperature=0.0, max_tokens=work.num_output_tokens, ignore_eos=True, detokenize=False)
        iterations.clear()
        given_s = time.perf_counter()
        engine.generate(prompts, sampling, use_tqdm=False)
        tokens_s: defaultdict[str, list[float]] = defaultdict(list)
        for end_s, outputs in iterations:
            for request_id, num_tokens in outputs:
                tokens_s[request_id] += [end_s] * num_tokens
        assert [len(each) for each in tokens_s.values()] == [work.num_output_tokens] * work.batch
        return Course(given_s, [end_s for end_s, _ in iterations], list(tokens_s.values()))

    yield do


if __name__ == "__main__":
    answer(start(sys.argv[1], int(sys.argv[2])))
