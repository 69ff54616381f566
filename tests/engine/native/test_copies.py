"""Copies in C against torch's, and that they refuse what torch's refuse."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import tetribench.engine.hf.cache as cache
import tetribench.engine.native.copies as copies
from tetribench.engine.hf.cache import copy_spans
from tetribench.engine.native.compiler import find_compiler
from tetribench.engine.spans import Span, Spans

NEEDS_COMPILER = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
SIZE = 700
"""Of a memory: some lines of a processor's cache, and a part of one."""


@st.composite
def some_spans(draw: st.DrawFn) -> Spans:
    """Anywhere in two memories: of no alignment, some upon what others have written."""

    def span() -> Span:
        num_bytes = draw(st.one_of(st.integers(1, 20), st.integers(1, SIZE)))
        return Span(draw(st.integers(0, SIZE - num_bytes)), draw(st.integers(0, SIZE - num_bytes)), num_bytes)

    return Spans.of(span() for _ in range(draw(st.integers(0, 8))))


def tagged(size: int) -> Tensor:
    return (torch.arange(size) % 251 + 1).to(torch.uint8)


@pytest.fixture(params=[0, 2**40], ids=["past-the-cache", "through-the-cache"])
def cache_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MUCH_BYTES", request.param)


def copied_by_torch(source: Tensor, target: Tensor, spans: Spans) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "why_not_native", lambda: "as asked")
        copy_spans(source, target, spans)


@NEEDS_COMPILER
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=some_spans(), shift=st.integers(0, 70))
def test_every_byte_is_where_torch_would_have_put_it(cache_bytes: None, spans: Spans, shift: int) -> None:
    source = tagged(SIZE)
    expected, found = torch.zeros(SIZE, dtype=torch.uint8), torch.zeros(SIZE + shift, dtype=torch.uint8)
    copied_by_torch(source, expected, spans)
    copy_spans(source, found[shift:], spans)
    assert torch.equal(found[shift:], expected) and not found[:shift].any()


@NEEDS_COMPILER
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=some_spans())
def test_within_one_memory_later_copies_see_what_earlier_ones_have_written(cache_bytes: None, spans: Spans) -> None:
    apart = Spans.of(span for span in spans if abs(span.source - span.target) >= span.num_bytes)
    expected, found = tagged(SIZE), tagged(SIZE)
    copied_by_torch(expected, expected, apart)
    copy_spans(found, found, apart)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("is_native", [pytest.param(True, marks=NEEDS_COMPILER), False])
@pytest.mark.parametrize(
    "span", [Span(0, 1, SIZE), Span(1, 0, SIZE), Span(-1, 0, 5), Span(0, 10, 11), Span(10, 0, 11), Span(0, 3, -2)]
)
def test_nothing_is_copied_where_one_span_is_refused(
    is_native: bool, span: Span, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From or to outside, or onto itself within one memory."""
    if not is_native:
        monkeypatch.setattr(cache, "why_not_native", lambda: "as asked")
    memory = tagged(SIZE)
    with pytest.raises(AssertionError, match="a copy"):
        copy_spans(memory, memory, Spans.of([Span(100, 0, 5), span]))
    assert torch.equal(memory, tagged(SIZE))


@pytest.mark.parametrize(("num_bytes", "is_read_next", "expected"), [(99, False, 0), (100, False, 1), (100, True, 0)])
def test_what_is_large_goes_past_the_cache_unless_it_is_read_next(
    num_bytes: int, is_read_next: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(copies, "_MUCH_BYTES", 100)
    monkeypatch.setattr(copies, "_function", lambda: lambda *arguments: seen.append(arguments[-2:]))
    copies.copy_native(0, 0, Spans.of([Span(0, 0, num_bytes - 40), Span(0, 200, 40)]), is_read_next)
    assert seen == [(2, expected)]


def test_a_compiler_that_fails_is_quoted_and_torch_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "copy.c"
    broken.write_text("void copy_spans( {")
    monkeypatch.setattr(copies, "_SOURCE", broken)
    monkeypatch.setattr(copies, "_function", copies._function.__wrapped__)
    monkeypatch.setattr(cache, "why_not_native", copies.why_not_native.__wrapped__)
    assert (cache.why_by_torch(torch.device("cpu")) or "").split(":")[0] in ("copy.c", find_compiler())
    target = torch.zeros(SIZE, dtype=torch.uint8)
    copy_spans(tagged(SIZE), target, Spans.of([Span(3, 0, SIZE - 3)]))
    assert torch.equal(target[:-3], tagged(SIZE)[3:])
