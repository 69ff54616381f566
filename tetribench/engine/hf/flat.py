"""A pass on the CPU as a flat list of torch's operators, without the Python of the model's modules.

That is to the modules what CUDA graphs are to a GPU's launches: a decode of few sequences takes a tenth to a quarter
less time (`tests/benchmarks/engine.md`).
"""

from functools import partial
from types import SimpleNamespace

import torch

from tetribench.engine.hf.graphs import Run


def record_operators(run: Run) -> Run:
    """What `run` does to the tensors that it finds, of which none may decide on what it does.

    Raises RuntimeError where one does.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    run()  # what is done once only is not part of it
    nothing = torch.zeros(0)  # it must be given something

    def traced(unused: torch.Tensor) -> torch.Tensor:
        run()
        return unused

    module = make_fx(traced)(nothing)
    held = {node.target: getattr(module, node.target) for node in module.graph.nodes if node.op == "get_attr"}
    # held by a plain object, as a module's own lookup of each tensor is Python's
    replay: Run = partial(type(module).forward, SimpleNamespace(**held), nothing)
    return replay
