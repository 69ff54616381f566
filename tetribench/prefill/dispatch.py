"""To which decode instance a prefilled request goes (paper section 3.3.4). Runs on each prefill instance by itself."""

from dataclasses import dataclass
from typing import Protocol

from tetribench.core.load import InstanceLoad, heavy_share
from tetribench.core.request import Request
from tetribench.core.seeds import Generator
from tetribench.core.sequence import Estimate, LengthRange


@dataclass(frozen=True, slots=True)
class Choice:
    """The instance chosen and those it was chosen from, by name.

    `num_fitting` instances have the memory that the request needs; None where the policy does not look.
    """

    to: str
    candidates: tuple[str, ...]
    num_fitting: int | None = None


class Dispatcher(Protocol):
    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        """Pick one of `loads` (never empty), which are as old as the last broadcast."""


class PowerOfTwo:
    """The paper's policy: two at random of those that can hold the decode, then the one that would suffer least.

    alpha is the instances whose memory, free by the last broadcast, holds the prompt and `estimate` of the response;
    the growth of what already runs there is not foreseen. If alpha is empty, the request goes to the one of all
    instances with the most free memory, where it waits for its turn with its KV held on the prefill side. Least
    interference is the
    lowest share of heavy decodes once the request has joined; ties go to the instance with more free memory, then to
    the first by name. The paper leaves these three open.
    """

    def __init__(self, *, num_choices: int = 2, estimate: Estimate = Estimate.high) -> None:
        if num_choices < 1:
            raise ValueError(f"prefill.dispatch.num_choices={num_choices}: must be at least 1")
        self.num_choices = num_choices
        self.estimate = estimate

    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        need_tokens = request.num_prompt_tokens + predicted.estimate(self.estimate)
        alpha = [name for name, load in loads.items() if load.num_free_tokens >= need_tokens]
        if not alpha:
            roomiest = min(loads, key=lambda name: (-loads[name].num_free_tokens, name))
            return Choice(roomiest, tuple(sorted(loads)), num_fitting=0)
        candidates = sorted(rng.sample(alpha, min(self.num_choices, len(alpha))))

        def interference(name: str) -> tuple[float, int, str]:
            load = loads[name]
            share = heavy_share(load.num_heavy, load.num_light, predicted.is_heavy)
            return share, -load.num_free_tokens, name

        return Choice(min(candidates, key=interference), tuple(candidates), num_fitting=len(alpha))


class RandomDispatch:
    """Any instance with equal chance, for comparison."""

    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        names = sorted(loads)
        return Choice(rng.choice(names), tuple(names))


class Imbalance:
    """Heavy decodes always to the same `num_heavy_instances` instances, light ones to the others: the worst case."""

    def __init__(self, *, num_heavy_instances: int = 1) -> None:
        if num_heavy_instances < 1:
            raise ValueError(f"prefill.dispatch.num_heavy_instances={num_heavy_instances}: must be at least 1")
        self.num_heavy_instances = num_heavy_instances

    def choose(
        self, request: Request, predicted: LengthRange, loads: dict[str, InstanceLoad], rng: Generator
    ) -> Choice:
        names = sorted(loads)
        heavy, light = names[: self.num_heavy_instances], names[self.num_heavy_instances :]
        group = heavy if predicted.is_heavy or not light else light
        return Choice(rng.choice(group), tuple(group))
