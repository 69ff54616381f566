"""What predicts response lengths on a prefill instance: a policy's or a classifier's answers, free or charged."""

from collections.abc import Sequence

from tetribench.core.clock import Clock
from tetribench.core.request import Request
from tetribench.core.seeds import generator
from tetribench.core.sequence import LengthRange
from tetribench.engine.base import Engine, LengthPredictor
from tetribench.engine.cost_engine import CostModelEngine
from tetribench.engine.predictor import ChargedPredictor, InstantPredictor
from tetribench.prefill.predict import Learned, Predictor
from tetribench.prefill.predict_mode import PredictMode


class PrefillPredictor:
    """The length predictor of every prefill instance of a system; light and picklable.

    A request's prediction depends on `seed` and its id, not on who makes it and when.
    """

    def __init__(self, policy: Predictor | Learned, mode: PredictMode, seed: int) -> None:
        self._policy = policy
        self._mode = mode
        self._seed = seed

    def check(self, requests: Sequence[Request]) -> None:
        if isinstance(self._policy, Learned) and not all(request.text for request in requests):
            raise ValueError(
                "prefill/predict=learned: reads prompts, and these requests have none; must have a tokenizer, "
                "as model=smollm2 has, and in virtual time a workload of texts, such as +workload=text"
            )

    def build(self, engine: Engine, clock: Clock, spare_core: int | None) -> LengthPredictor:
        if isinstance(self._policy, Learned):
            device = None if isinstance(engine, CostModelEngine) else engine.info.device
            return self._charged(self._learned(self._policy, device, spare_core), engine)
        instant = self._instant(self._policy)
        return self._charged(instant, engine) if self._policy.runs_model else instant

    def _charged(self, answers: LengthPredictor, engine: Engine) -> LengthPredictor:
        """On a cost model that knows what a prediction costs, one that takes that time; else as it is."""
        if not self._mode.charge or not isinstance(engine, CostModelEngine) or engine.predictor_cost is None:
            return answers
        return ChargedPredictor(answers, engine.predictor_cost, engine.device)

    def _instant(self, policy: Predictor) -> LengthPredictor:
        def answer(request: Request) -> LengthRange:
            return policy.predict(request, generator(self._seed, "predict", request.id))

        return InstantPredictor(answer, type(policy).__name__, self._mode.is_parallel)

    def _learned(self, policy: Learned, device: str | None, spare_core: int | None) -> LengthPredictor:
        from tetribench.engine.hf.predictor_runtime import learned_predictor  # torch only where it classifies

        return learned_predictor(policy.checkpoint, device, self._mode.is_parallel, spare_core)
