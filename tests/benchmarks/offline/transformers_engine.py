"""transformers' continuous batching (what `generate_batch` starts and stops), on one core, in our own environment.

It is started once and timed inside: by itself, a start and a stop take longer than all of the work.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from tests.benchmarks.offline.answering import Do, answer
from tests.benchmarks.offline.cases import Course, Work, prompt_ids

PAGE_SIZE = 16
NUM_BLOCKS = 3072
"""For 64 sequences of 768 tokens."""


@contextmanager
def start(model_folder: str, budget: int) -> Iterator[Do]:
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa")
    config = ContinuousBatchingConfig(
        page_size=PAGE_SIZE, num_blocks=NUM_BLOCKS, max_batch_tokens=budget, allow_block_sharing=False
    )
    generation: Any = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)  # type: ignore[no-untyped-call]
    with model.continuous_batching_context_manager(
        generation_config=generation, continuous_batching_config=config
    ) as manager:

        def do(work: Work) -> Course:
            prompts = [prompt_ids(id, work.num_prompt_tokens) for id in range(work.batch)]
            given_s = time.perf_counter()
            manager.add_requests(prompts, max_new_tokens=work.num_output_tokens, record_timestamps=True)
            outputs: list[Any] = []
            while len(outputs) < work.batch:
                output = manager.get_result(timeout=1.0)
                if output is not None:
                    assert output.error is None, output.error
                    outputs.append(output)
                assert output is not None or manager.is_running(), "its thread has ended"
            assert [len(output.generated_tokens) for output in outputs] == [work.num_output_tokens] * work.batch
            tokens_s = [output.timestamps for output in outputs]
            return Course(given_s, sorted({time_s for each in tokens_s for time_s in each}), tokens_s)

        yield do


if __name__ == "__main__":
    answer(start(sys.argv[1], int(sys.argv[2])))
