"""The pages as a browser shows them: nothing wider than the window, the verdict in sight. Pictures are kept beside."""

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.conftest import build_run, serve_again
from tetribench.report.write import write_report, write_side_by_side

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / ".screenshots"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

HEIGHTS = {1100: 900, 390: 844}
"""The first screen, by its width, in CSS pixels."""

MIN_WINDOW = 500
"""Chromium makes no window narrower, so that a page stands in a frame."""

MEASURE = """
onload = () => {
  const frame = document.querySelector("iframe"), root = frame.contentDocument.documentElement;
  const verdict = frame.contentDocument.querySelector(".verdict")?.getBoundingClientRect();
  const isDark = frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches;
  document.body.dataset.measured = [root.scrollWidth, Math.ceil(verdict?.bottom ?? 0), Number(isDark)].join(" ");
};
"""


def chromium(page: Path, width: int, is_dark: bool, profile: Path, *arguments: str) -> str:
    """What Chromium prints for a frame of this width with the page in it."""
    frame = profile.with_suffix(".html")
    size = f"width:{width}px;height:{HEIGHTS[width]}px"
    frame.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><script>{MEASURE}</script><body style="margin:0">'
        f'<iframe style="border:0;display:block;{size}" srcdoc="{html.escape(page.read_text())}"></iframe></body>'
    )
    quiet = ("background-networking", "component-update", "sync", "gpu", "dev-shm-usage")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--hide-scrollbars",
        "--no-first-run",
        *(f"--disable-{name}" for name in quiet),
        f"--user-data-dir={profile}",
        f"--blink-settings=preferredColorScheme={int(not is_dark)}",
        f"--window-size={max(width, MIN_WINDOW)},{HEIGHTS[width]}",
        *arguments,
        frame.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def look(page: Path, width: int, is_dark: bool, profile: Path) -> tuple[int, int, bool]:
    """Width of the content, where the verdict ends (0 without one), and whether the page is dark; keeps a picture."""
    SCREENSHOTS.mkdir(exist_ok=True)
    picture = SCREENSHOTS / f"{page.stem}-{width}-{'dark' if is_dark else 'light'}.png"
    picture.unlink(missing_ok=True)
    chromium(page, width, is_dark, profile, f"--screenshot={picture}")
    assert picture.stat().st_size > 10_000
    found = re.search(r'data-measured="(\d+) (\d+) ([01])"', chromium(page, width, is_dark, profile, "--dump-dom"))
    assert found, "the page did not load"
    return int(found[1]), int(found[2]), found[3] == "1"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with a verdict, every serving made twice."""
    path = build_run(tmp_path_factory.mktemp("browser") / "run", num_requests=60, num_repeats=3)
    serve_again(path, 1.05)
    write_report(path)
    return path / "report.html"


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", HEIGHTS)
def test_a_report_fits_its_window_and_begins_with_the_verdict(
    report: Path, width: int, is_dark: bool, tmp_path: Path
) -> None:
    content, verdict_bottom, was_dark = look(report, width, is_dark, tmp_path / "profile")
    assert content == width
    assert 0 < verdict_bottom <= HEIGHTS[width]
    assert was_dark == is_dark


@pytest.mark.parametrize("width", HEIGHTS)
def test_runs_side_by_side_fit_their_window(make_run: Callable[..., Path], width: int, tmp_path: Path) -> None:
    write_side_by_side([make_run("a", seed=1), make_run("b", seed=2)], tmp_path / "out")
    assert look(tmp_path / "out" / "side_by_side.html", width, False, tmp_path / "profile")[0] == width


def test_what_is_too_wide_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text('<!DOCTYPE html><div style="width:2000px">' + "<p>wide</p>" * 40 + "</div>")
    assert look(page, 390, False, tmp_path / "profile") == (2000 + 8, 0, False)
