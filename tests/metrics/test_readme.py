"""The README's tables name what there is: every code of validity, every trap once, and tests that exist."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tetribench.metrics.limits import Limits
from tetribench.metrics.validity import REAL_TIME_ONLY, Code

TESTS = Path(__file__).parents[1]
README = (TESTS.parent / "tetribench" / "metrics" / "README.md").read_text()
TRAPS = re.findall(r"^\| (\d+) \| (.*) \| (.*) \| (.*?) ?\|$", README, re.MULTILINE)
PROOFS = re.findall(r"`([\w/]+\.py)::(\w+)`", README)


def test_every_trap_has_a_guard() -> None:
    assert [int(number) for number, *_ in TRAPS] == list(range(1, 33))
    assert all(guard for _, _, guard, _ in TRAPS)


def test_a_trap_without_a_proof_says_why_it_cannot_happen_or_whose_it_is() -> None:
    unproven = [guard for _, _, guard, proof in TRAPS if not proof]
    assert all("cannot happen" in guard or ".py" in guard for guard in unproven)


@pytest.mark.parametrize(("file", "name"), PROOFS)
def test_every_proof_is_a_test(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_every_code_is_explained() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`( \*)? \|", README, re.MULTILINE))
    codes = {code: mark for code, mark in rows.items() if code in set(Code)}
    assert codes.keys() == set(Code)
    assert {code for code, mark in codes.items() if mark} == REAL_TIME_ONLY


def test_every_limit_is_named() -> None:
    assert all(f"`{field.name}`" in README for field in fields(Limits) if field.name != "calibration_s")
