"""What is taken from a run: on small simulated ones, and on one in which nothing happened."""

from collections.abc import Iterator
from math import isnan

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from tetribench.composition import Composition
from tetribench.config import conf_folder, register
from tetribench.metrics.compare import SystemResult, measure
from tetribench.metrics.slo import Slo
from tetribench.paper.fig17 import PredictorModes
from tetribench.paper.fig18 import Admission
from tetribench.paper.fig19 import Dispatching
from tetribench.paper.quantities import mean_of, overlaps, predictions, quantile_of, resource
from tetribench.study.simulate import simulate


@pytest.fixture(scope="module")
def modes() -> Iterator[dict[str, SystemResult]]:
    """Eight requests with the predictor off, before and beside the prefills."""
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = Composition(compose("config", ["+experiment=fig17", "workload.num_requests=8"]), "")
    labels = composed.axes()["mode"]
    yield {mode: simulate(composed.variant(options).setup()) for mode, options in labels.items()}


def test_spans_that_only_touch_do_not_overlap() -> None:
    spans = pd.DataFrame({"started_s": [0.0, 1.0, 2.0], "ended_s": [1.0, 2.0, 3.0]}, index=[5, 6, 7])
    others = pd.DataFrame({"started_s": [1.0, 2.5], "ended_s": [2.0, 2.6]})
    assert overlaps(spans, others).to_dict() == {5: False, 6: True, 7: True}
    assert not overlaps(spans, others.iloc[:0]).any()


def test_predictions_share_one_iteration_of_the_predictor(modes: dict[str, SystemResult]) -> None:
    spans = predictions(modes["parallel"])
    assert 0 < len(spans) < 8
    assert (spans["ended_s"] > spans["started_s"]).all()
    assert predictions(modes["off"]).empty


def test_what_prediction_costs_is_seen(modes: dict[str, SystemResult]) -> None:
    quantities = PredictorModes().quantities
    values = {mode: {name: quantity(result) for name, quantity in quantities.items()} for mode, result in modes.items()}
    off, sequential, parallel = values["off"], values["sequential"], values["parallel"]
    assert (off["unaffected_share"], sequential["unaffected_share"]) == (1.0, 1.0)
    assert parallel["unaffected_share"] < 1.0
    assert parallel["iteration_s"] > off["iteration_s"] == pytest.approx(sequential["iteration_s"], rel=1e-3)
    assert off["prefill_tokens_per_s"] > max(sequential["prefill_tokens_per_s"], parallel["prefill_tokens_per_s"])
    assert off["prediction_s"] == off["prediction_share"] == 0.0 < sequential["prediction_share"]


def test_decode_instances_are_measured_apart_from_prefill_instances(modes: dict[str, SystemResult]) -> None:
    result = modes["off"]
    decode = result.instances[result.instances["role"] == "decode"]
    values = {name: quantity(result) for name, quantity in Dispatching().quantities.items()}
    assert values["slowest_decode_s"] == decode["busy_decode_s"].max() > 0
    assert values["spread"] == 1.0
    num_tokens = result.requests[["num_prompt_tokens", "num_output_tokens"]].to_numpy().sum()
    admission = Admission().quantities
    assert admission["kv_tokens"](result) == decode["kv_capacity_tokens"].sum()
    assert admission["requests_over_kv"](result) == pytest.approx(num_tokens / decode["kv_capacity_tokens"].sum())


def test_what_is_undefined_is_no_number() -> None:
    nothing = measure("nothing", [], Slo())
    for quantity in (mean_of("jct_s"), quantile_of("jct_s", 0.5), resource("resource_time_s")):
        assert isnan(quantity(nothing)) or quantity(nothing) == 0.0
