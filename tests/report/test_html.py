"""The page: whole in itself, its numbers those of metrics.json, honest about what it is."""

import json
from collections.abc import Callable
from functools import reduce
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import add_copies
from tests.run_folders import slot
from tetribench.metrics.compare import HEADLINES
from tetribench.report.html import PERF_PER_DOLLAR, breakable
from tetribench.report.runs import Run
from tetribench.report.wording import listed
from tetribench.report.write import write_report

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Checks that tags are balanced; collects what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.data: list[tuple[dict[str, str], str]] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.links += [value for name, value in values.items() if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "data":
            self.data.append((values, ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], data)
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "report.html").read_text())


def test_nothing_outside_of_the_page_is_needed(page: Page) -> None:
    assert page.links
    for link in page.links:
        assert link.startswith("data:image/") or (link.startswith("#") and link[1:] in page.ids), link[:80]
    assert not page.tags & {"script", "link", "iframe", "object"}


def test_styles_fetch_nothing(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style and "@media print" in style


def test_every_number_is_that_of_metrics_json(page: Page, reported: Path) -> None:
    document: Any = json.loads((reported / "metrics.json").read_text())
    assert len(page.data) > 300
    for attributes, text in page.data:
        value = reduce(step, attributes["data-path"].split("/"), document)
        assert float(attributes["value"]) == value
        assert text


def step(found: Any, name: str) -> Any:
    return found[int(name)] if isinstance(found, list) else found[name]


def test_the_page_says_what_was_compared(page: Page, reported: Path) -> None:
    rows = {row["metric"]: row for row in json.loads((reported / "metrics.json").read_text())["comparison"]}
    ratio = rows["mean_jct_s"]["ratios"]["tetri"]
    assert "On 40 requests of workload mixed, in virtual time (cost model), tetri had" in page.text
    assert f"{ratio:.3g}\N{MULTIPLICATION SIGN} the mean JCT" in page.text
    for fact in (
        "complete",
        "40 requests",
        "0 cut",
        "0 failed",
        "seed 0",
        "One repeat, no interval",
        "2026-11-22 12:00 UTC",
    ):
        assert fact in page.text
    assert "nothing here was timed on hardware" in page.text
    assert "vllm_like has 1 device and KV memory for 14,400 tokens" in page.text


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("governor", "not told"),
        ("clock now", "not told"),
        ("clock max", "3500 MHz"),
        ("load average before", "0.25, 0.5, 1.0"),
    ],
)
def test_the_page_says_what_the_machine_tells(reported: Path, fact: str, text: str) -> None:
    assert f"<dt>{fact}</dt><dd>{text}</dd>" in (reported / "report.html").read_text()


def test_the_page_shows_provenance(page: Page) -> None:
    for fact in (
        "tetribench +workload=mixed seed=0",
        "b1946ac92492d2347c6235b4",
        "0123abc, changed",
        "23.5 GiB",
    ):
        assert fact in page.text
    assert "a processor <of some kind>" in page.text
    assert "reserve_dynamic" in page.text
    assert "TTFT ≤ 2.00 s and TPOT ≤ 100 ms" in page.text
    assert "max(admitted, prefill_done) - prefill_done" in page.text


def test_real_time_is_not_called_virtual(make_run: Callable[..., Path]) -> None:
    path = make_run(runtime="process", slo={"ttft_s": None, "tpot_s": None})
    write_report(path)
    text = Page((path / "report.html").read_text()).text
    assert "virtual" not in text.lower()
    assert "real time (process)" in text
    assert "No service level objective" in text


def test_several_sla_classes_are_shown_with_their_bounds(make_classed_run: Callable[..., Path]) -> None:
    classes = {"interactive": {"ttft_s": 0.5}, "batch": {"ttft_s": None, "tpot_s": None}}
    path = make_classed_run(slo={"ttft_s": 2.0, "tpot_s": 0.1, "classes": classes})
    write_report(path)
    page, document = Page((path / "report.html").read_text()), json.loads((path / "metrics.json").read_text())
    assert (
        "Service level objective of each SLA class. batch: none, every finished request counts; "
        "interactive: TTFT ≤ 500 ms and TPOT ≤ 100 ms." in page.text
    )
    assert "SLO attainment by SLA class" in page.text
    shown = {attributes["data-path"] for attributes, _ in page.data}
    assert "pooled/tetri/slo/interactive/attained_share" in shown
    for attributes, _ in page.data:
        assert float(attributes["value"]) == reduce(step, attributes["data-path"].split("/"), document)


def test_sla_classes_with_the_same_bounds_share_a_sentence(make_classed_run: Callable[..., Path]) -> None:
    path = make_classed_run(slo={"ttft_s": 2.0, "tpot_s": None, "classes": {"batch": {"ttft_s": 2.0}}})
    write_report(path)
    assert "Service level objective: TTFT ≤ 2.00 s." in Page((path / "report.html").read_text()).text


def test_a_partial_run_is_stamped_everywhere(make_run: Callable[..., Path]) -> None:
    path = make_run(num_requests=12)
    (path / "status.json").write_text('{"state": "interrupted", "reason": "stopped by the user"}')
    log = slot(path, "tetri") / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) // 2]))
    write_report(path, allow_partial=True)
    text = Page((path / "report.html").read_text()).text
    assert "INTERRUPTED: stopped by the user." in text
    assert "unfinished" in text and "its latencies describe the rest" in text


def test_one_system_alone_has_a_page(make_run: Callable[..., Path]) -> None:
    path = make_run(systems=["vllm_like"])
    write_report(path)
    text = Page((path / "report.html").read_text()).text
    assert "vllm_like had" in text and "mean TTFT" in text
    assert "better" not in text.split("Glossary")[1].split("Comparison")[1].split("Figures")[0]


def test_several_systems_share_a_page(make_run: Callable[..., Path]) -> None:
    path = make_run()
    add_copies(path, ["tetri#2"])
    write_report(path)
    page, document = Page((path / "report.html").read_text()), json.loads((path / "metrics.json").read_text())
    assert "as ratios to vllm_like: tetri#2 " in page.text
    assert "tetri#2 and tetri have 2 devices" in page.text
    for attributes, _ in page.data:
        assert float(attributes["value"]) == reduce(step, attributes["data-path"].split("/"), document)


def test_the_glossary_explains_the_comparison_by_its_titles() -> None:
    assert set(PERF_PER_DOLLAR) <= {headline.title for headline in HEADLINES}


def test_names_may_break_and_are_escaped() -> None:
    assert str(breakable("a_<b>")) == "a_<wbr>&lt;b&gt;"


def test_listed() -> None:
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_many_systems_are_summed_up_and_not_listed(many: Run) -> None:
    text = (many.path / "report.html").read_text()
    assert "7 systems against vllm_like" in text
    assert 'class="tile' not in text
    assert "worse in red and bold" in text and "say only which way a ratio points" not in text
