import subprocess
import sys
from dataclasses import replace

import pytest

from tetribench.core.request import class_of
from tetribench.workload.arrivals import AtOnce, Poisson
from tetribench.workload.classes import ClassWorkload
from tetribench.workload.lengths import LengthClass, Task

CLASSES = [LengthClass.light, LengthClass.heavy, LengthClass.any]


@pytest.mark.parametrize("prompt", CLASSES)
@pytest.mark.parametrize("output", CLASSES)
def test_labels_are_the_class_of_each_request(prompt: LengthClass, output: LengthClass) -> None:
    drawn = ClassWorkload(name="x", arrivals=AtOnce(), prompt=prompt, output=output, num_requests=300).draw(0)
    assert [request.id for request in drawn.requests] == list(range(300))
    assert all(
        request.label == class_of(request.num_prompt_tokens, request.max_output_tokens) for request in drawn.requests
    )
    sides = {LengthClass.light: {"L"}, LengthClass.heavy: {"H"}, LengthClass.any: {"L", "H"}}
    assert {request.label[0] for request in drawn.requests} == sides[prompt]
    assert {request.label[2] for request in drawn.requests} == sides[output]


def test_scaling_changes_lengths_and_not_labels() -> None:
    full = ClassWorkload(name="x", arrivals=AtOnce()).draw(0).requests
    small = ClassWorkload(name="x", arrivals=AtOnce(), length_scale=0.01).draw(0).requests
    assert [request.label for request in small] == [request.label for request in full]
    assert [request.num_prompt_tokens for request in small] == [max(1, round(r.num_prompt_tokens / 100)) for r in full]
    assert [request.max_output_tokens for request in small] == [max(1, round(r.max_output_tokens / 100)) for r in full]


def test_prompts_and_outputs_have_scales_of_their_own() -> None:
    full = ClassWorkload(name="x", arrivals=AtOnce()).draw(0).requests
    scaled = ClassWorkload(name="x", arrivals=AtOnce(), length_scale=2, prompt_scale=0.5, output_scale=1e-9).draw(0)
    assert [request.num_prompt_tokens for request in scaled.requests] == [r.num_prompt_tokens for r in full]
    assert {request.max_output_tokens for request in scaled.requests} == {1}


def test_a_seed_gives_the_same_requests_and_another_seed_others(mixed: ClassWorkload) -> None:
    assert mixed.draw(7) == mixed.draw(7)
    assert mixed.draw(7).fingerprint() != mixed.draw(8).fingerprint()


def test_arrivals_do_not_move_lengths(mixed: ClassWorkload) -> None:
    poisson = ClassWorkload(name="mixed", arrivals=Poisson(), request_rate=3.0, num_requests=200).draw(0).requests
    lengths = [(request.num_prompt_tokens, request.max_output_tokens) for request in mixed.draw(0).requests]
    assert [(request.num_prompt_tokens, request.max_output_tokens) for request in poisson] == lengths
    assert poisson[0].arrival_s > 0


def test_prompt_and_output_are_independent() -> None:
    labels = [r.label for r in ClassWorkload(name="x", arrivals=AtOnce(), num_requests=20_000).draw(0).requests]
    heavy_prefill = sum(label[:2] == "HP" for label in labels) / len(labels)
    heavy_decode = sum(label[2:] == "HD" for label in labels) / len(labels)
    assert labels.count("HPHD") / len(labels) == pytest.approx(heavy_prefill * heavy_decode, abs=0.01)


def test_a_task_has_its_own_lengths() -> None:
    requests = ClassWorkload(name="x", arrivals=AtOnce(), task=Task.summarization, num_requests=2000).draw(0).requests
    assert sorted(request.num_prompt_tokens for request in requests)[1000] == pytest.approx(3400, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_requests": 0}, r"^workload\.num_requests=0: must be at least 1$"),
        ({"prompt_scale": 0.0}, r"^workload\.prompt_scale=0\.0: must be above 0 and finite$"),
        ({"output_scale": -1.0}, r"^workload\.output_scale=-1\.0: must be above 0 and finite$"),
        ({"length_scale": 0.0}, r"^workload\.length_scale=0\.0: must be above 0 and finite$"),
        ({"request_rate": 4.0}, r"^workload\.request_rate=4\.0: arrivals at_once has no rate"),
    ],
)
def test_illegal_options_are_refused_at_construction(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassWorkload(name="x", arrivals=AtOnce(), **options)  # type: ignore[arg-type]


def test_all_requests_come_under_one_sla_class(mixed: ClassWorkload) -> None:
    batch = ClassWorkload(name="mixed", arrivals=AtOnce(), num_requests=200, sla_class="batch").draw(0)
    assert {request.sla_class for request in batch.requests} == {"batch"}
    assert [replace(request, sla_class="default") for request in batch.requests] == mixed.draw(0).requests


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "caf\u00e9", "a\n"])
def test_an_sla_class_must_be_a_word(name: str) -> None:
    with pytest.raises(ValueError, match=r"^workload\.sla_class=(.|\n)*: must be letters, digits, - and _$"):
        ClassWorkload(name="x", arrivals=AtOnce(), sla_class=name)


def test_a_seed_must_not_be_negative(mixed: ClassWorkload) -> None:
    with pytest.raises(ValueError, match=r"^seed=-1: must be at least 0$"):
        mixed.draw(-1)


def test_importing_the_package_imports_nothing_slow() -> None:
    modules = "classes traces text files generate"
    slow = ["numpy", "pandas", "pyarrow", "datasets", "torch"]
    code = "import sys\n" + "".join(f"import tetribench.workload.{name}\n" for name in modules.split())
    code += f"print([name for name in {slow} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
