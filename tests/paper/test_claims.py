"""Claims as data: what is refused, and that those of the project are about experiments that there are."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hydra import compose, initialize_config_dir

from tetribench.composition import Composition
from tetribench.config import conf_folder, options_of, register
from tetribench.experiment import Axes
from tetribench.paper.claims import NotEvaluated, Share, Size, check_claims, load_claims
from tetribench.study.base import Study

GOOD: dict[str, Any] = {
    "id": "a",
    "where": "Figure 1",
    "kind": "size",
    "says": "x falls",
    "experiment": "fig11",
    "metric": "jct_s",
    "of": {"system": "ts_nvlink"},
    "against": {"system": "vllm_like_cap16"},
    "change": -0.4,
    "tolerance": 0.1,
}


def write(folder: Path, *claims: Any) -> Path:
    path = folder / "claims.yaml"
    path.write_bytes(msgspec.yaml.encode(list(claims)))
    return path


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


def test_a_claim_of_each_kind(tmp_path: Path) -> None:
    share = {**without("against"), "id": "b", "kind": "share", "share": 0.8}
    del share["change"]
    not_evaluated = {"id": "c", "kind": "not_evaluated", "where": "", "says": "", "reason": "no device"}
    size, other, last = load_claims(write(tmp_path, GOOD, share, not_evaluated))
    assert isinstance(size, Size) and size.change == -0.4
    assert isinstance(other, Share) and other.share == 0.8
    assert isinstance(last, NotEvaluated) and last.reason == "no device"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (without("tolerance"), "claim a: Object missing required field `tolerance`"),
        (without("id"), "claim number 1: Object missing required field `id`"),
        ({**GOOD, "tolerance": 0}, "claim a: Expected `float` > 0.0"),
        ({**GOOD, "tolerence": 0.1}, "claim a: Object contains unknown field `tolerence`"),
        ({**GOOD, "kind": "guess"}, "claim a: Invalid value 'guess'"),
        ({**GOOD, "change": "less"}, "claim a: Expected `float`, got `str`"),
        ("a sentence", "claim number 1: Expected `object`, got `str`"),
    ],
)
def test_bad_claims_are_one_line_that_names_them(claim: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        load_claims(write(tmp_path, claim))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_id_is_used_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="claim a: there are two of this id"):
        load_claims(write(tmp_path, GOOD, GOOD))


@pytest.mark.parametrize("text", ["", "a: 1", "- [", "[]"])
def test_a_file_without_claims_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"claims.yaml: (must be a list of claims|cannot be read)"):
        load_claims(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_claims(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiment": "fig99"}, "claim a: experiment=fig99: there are fig11, fig12"),
        ({"of": {"system": "tetri"}}, "claim a: system=tetri: no such label of fig11; system has ts_nvlink, vllm"),
        ({"against": {"size": "2"}}, "claim a: size=2: no such label of fig11; the axes are system"),
        ({"of": {}}, "claim a: of: must have a label for system"),
        ({"metric": "speed"}, "claim a: metric=speed: must be one of jct_s"),
    ],
)
def test_a_claim_is_about_what_there_is(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    claims = load_claims(write(tmp_path, {**GOOD, **change}))
    axes: dict[str, Axes] = {"fig11": {"system": {"ts_nvlink": {}, "vllm_like_cap16": {}}}}
    metrics = {"fig11": frozenset({"jct_s"})}
    with pytest.raises(ValueError) as caught:
        check_claims(claims, ["fig11", "fig12"], axes, metrics)
    assert str(caught.value).startswith(message)


def test_a_claim_of_an_experiment_that_is_not_run_is_let_be(tmp_path: Path) -> None:
    check_claims(load_claims(write(tmp_path, GOOD)), ["fig11"], {}, {})


def test_the_claims_of_the_project_are_about_what_there_is() -> None:
    register()
    claims = load_claims(conf_folder() / "claims.yaml")
    names = {claim.experiment for claim in claims if not isinstance(claim, NotEvaluated)}
    axes: dict[str, Axes] = {}
    metrics: dict[str, frozenset[str]] = {}
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for name in sorted(names):
            composed = Composition(compose("config", [f"+experiment={name}"]), "")
            study = composed.task()
            assert isinstance(study, Study)
            axes[name], metrics[name] = composed.axes(), frozenset(getattr(study.figure, "quantities", ()))
        scan = Composition(compose("config", ["+experiment=sensitivity"]), "").axes()
    check_claims(claims, options_of("experiment"), axes, metrics)
    scanned = {claim.workload for claim in claims if not isinstance(claim, NotEvaluated) and claim.workload}
    assert scanned == set(scan["workload"])
