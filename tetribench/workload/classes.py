"""The paper's workloads: requests of one class of prompt and one class of generation, or of any (section 5.1)."""

from tetribench.core.request import DEFAULT_SLA_CLASS
from tetribench.workload.arrivals import Arrivals, check_rate
from tetribench.workload.checks import check_count, check_positive, check_sla_class
from tetribench.workload.lengths import OUTPUT_TOKENS, PROMPT_TOKENS, LengthClass, Task
from tetribench.workload.request_set import RequestSet
from tetribench.workload.seeds import generator
from tetribench.workload.spec import Tokenizer, to_requests


class ClassWorkload:
    """`num_requests` requests with lengths of `task`, restricted to one class of prompt and of output.

    Prompt and output are drawn independently of each other: the paper shows only the two marginal distributions.
    Lengths are multiplied by `length_scale`, and those of prompts and outputs by a scale of their own too; classes are
    those of the lengths before that. `request_rate` is in requests per second. All requests come under `sla_class`.
    """

    def __init__(
        self,
        *,
        name: str,
        arrivals: Arrivals,
        prompt: LengthClass = LengthClass.any,
        output: LengthClass = LengthClass.any,
        task: Task = Task.conversation,
        num_requests: int = 128,
        request_rate: float | None = None,
        length_scale: float = 1.0,
        prompt_scale: float = 1.0,
        output_scale: float = 1.0,
        sla_class: str = DEFAULT_SLA_CLASS,
    ) -> None:
        check_count("workload.num_requests", num_requests)
        for option, scale in {"length": length_scale, "prompt": prompt_scale, "output": output_scale}.items():
            check_positive(f"workload.{option}_scale", scale)
        check_rate(arrivals, request_rate)
        check_sla_class("workload.sla_class", sla_class)
        self.name = name
        self.arrivals = arrivals
        self.prompt = prompt
        self.output = output
        self.task = task
        self.num_requests = num_requests
        self.request_rate = request_rate
        self.scales = (length_scale * prompt_scale, length_scale * output_scale)
        self.sla_class = sla_class

    def draw(self, seed: int, tokenizer: Tokenizer | None = None) -> RequestSet:
        num = self.num_requests
        arrivals_s = self.arrivals.times(num, self.request_rate, generator(seed, "workload/arrivals"))
        prompts = PROMPT_TOKENS[self.task].sample(generator(seed, "workload/prompt"), num, self.prompt)
        outputs = OUTPUT_TOKENS[self.task].sample(generator(seed, "workload/output"), num, self.output)
        lengths = zip(prompts, outputs, strict=True)
        requests = to_requests(arrivals_s, lengths, [self.sla_class] * num, self.scales)
        return RequestSet(name=self.name, requests=requests)
