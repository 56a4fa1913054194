"""A real browser for the tests of the listening page: fixtures, which conftest.py offers, and questions to a page."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.report import small_report
from wavegen.listening.report import write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium in the path (on Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_page(small_report(tmp_path_factory.mktemp("sounds")), folder)


@pytest.fixture
def opened(browser: Any, small_page: Path) -> Iterator[Open]:
    """Open the page; whatever the test did, nothing may have gone wrong in the console or out to a network."""
    contexts, faults, asked = [], [], []

    def open_page(
        path: Path = small_page, *, at: str = "", width: int = 1280, faulty: bool = False, **options: Any
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        if not faulty:
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path.as_uri() + at)
        return page

    yield open_page
    for context in contexts:
        assert all(page.evaluate("window.hacked") is None for page in context.pages)
        context.close()
    assert faults == []
    assert asked
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def card(page: Any, index: int = 0) -> Any:
    return page.locator("article.clip").nth(index)


def chosen(scope: Any) -> list[int]:
    pressed = [one.get_attribute("aria-pressed") for one in scope.locator(".pick").all()]
    return [index for index, value in enumerate(pressed) if value == "true"]


def position(page: Any) -> float:
    return float(page.evaluate("Deck.heard.position"))


def wait_until(page: Any, condition: str) -> None:
    """Playwright's own wait_for_function needs eval, which the page forbids."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never: {condition}")


def wait_for_position(page: Any, seconds: float) -> None:
    wait_until(page, f"Deck.heard && Deck.heard.position > {seconds}")
