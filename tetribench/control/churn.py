"""Changes of a system that the user asks for in advance: instances that die, leave, come or flip, and when."""

import math
from collections import Counter
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from enum import StrEnum

from tetribench.core.roles import Role


class Action(StrEnum):
    """What can be asked for: of an instance by name, or for `add` of a role.

    A kill is SIGKILL for an instance in its own process, and in virtual time the end of everything that it was doing.
    """

    kill = "kill"
    remove = "remove"
    add = "add"
    flip = "flip"


@dataclass(frozen=True, slots=True)
class Step:
    """`action` on `target`, `at_s` seconds after the system was ready."""

    at_s: float
    action: Action
    target: str


def parse_churn(option: str, texts: SequenceOf[str], num_instances: dict[Role, int]) -> list[Step]:
    """The steps of `option`, such as `2.5 kill decode-0`, `4 add decode`, `6 flip prefill-1`, in order of time.

    Raises ValueError for a step that cannot be read, and for one on an instance that a system which starts with
    `num_instances` will never have.
    """
    steps = sorted((_parse(option, text) for text in texts), key=lambda step: step.at_s)
    counts = Counter(num_instances)
    for step in steps:
        if step.action is Action.add:
            counts[Role(step.target)] += 1
        names = [f"{role}-{number}" for role, count in counts.items() for number in range(count)]
        legal = [str(role) for role in num_instances] if step.action is Action.add else names
        if step.target not in legal:
            raise ValueError(f"{option}: {step.action} {step.target}: must be one of {', '.join(legal)}")
    return steps


def _parse(option: str, text: str) -> Step:
    at_s, action, target = (text.split() + [""] * 3)[:3]
    is_whole = len(text.split()) == 3 and action in list(Action)
    is_whole = is_whole and (action != Action.add or target in list(Role))
    try:
        if is_whole and 0 <= float(at_s) < math.inf:
            return Step(float(at_s), Action(action), target)
    except ValueError:
        pass  # not a number: answered below
    raise ValueError(
        f"{option}={text!r}: must be SECONDS ACTION TARGET, the action one of {', '.join(Action)}, "
        f"the target a role for add and an instance for the others"
    )
