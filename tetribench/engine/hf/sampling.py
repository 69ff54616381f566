"""From logits to token ids; a draw depends on the seed, the request and the position, never on who shares the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tetribench.core.seeds import generator


@dataclass(frozen=True, slots=True)
class Sampler:
    """Greedy where `temperature` is 0; else a draw from the `top_k` likeliest tokens, cut to `top_p` of their mass."""

    temperature: float
    top_k: int | None
    top_p: float
    seed: int

    def choose(self, logits: Tensor, request_ids: list[int], positions: list[int]) -> list[int]:
        """One token id for each row of `logits` `[rows, vocabulary]`; `positions` are those of the tokens drawn."""
        if self.temperature == 0:
            chosen: list[int] = logits.argmax(dim=-1).tolist()
            return chosen
        ordered, token_ids = torch.sort(logits.float() / self.temperature, dim=-1, descending=True, stable=True)
        weights = torch.softmax(ordered[:, : self.top_k], dim=-1, dtype=torch.float64)
        mass = weights.cumsum(-1)
        num_kept = (mass - weights < self.top_p).sum(-1, keepdim=True)  # the token that reaches top_p is still in
        draws = [
            generator(self.seed, "sample", request_id, position).random()
            for request_id, position in zip(request_ids, positions, strict=True)
        ]
        uniform = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None]
        ranks = torch.searchsorted(mass, uniform * mass.gather(1, num_kept - 1), right=True)
        sampled: list[int] = token_ids.gather(1, ranks.minimum(num_kept - 1))[:, 0].tolist()
        return sampled
