"""A real browser for the tests of the listening page: fixtures, and helpers that read the state of a page."""

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
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a microphone that hears beeps
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
    """A function that opens the page; afterwards, its console must show no errors, and it must not have used a network.

    With ``faulty=True``, errors in the console are expected.
    """
    contexts: list[Any] = []
    faults: list[str] = []
    requests: list[str] = []

    def open_page(
        path: Path = small_page, *, at: str = "", width: int = 1280, faulty: bool = False, **options: Any
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: requests.append(request.url))
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
    assert requests
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)


def card(page: Any, index: int = 0) -> Any:
    """The card of a clip in the comparison view."""
    return page.locator("article.clip").nth(index)


def chosen(scope: Any) -> list[int]:
    """Indices of the sounds whose button is pressed."""
    pressed = [button.get_attribute("aria-pressed") for button in scope.locator(".pick").all()]
    return [index for index, value in enumerate(pressed) if value == "true"]


def position(page: Any) -> float:
    """Position in seconds of the deck that was played last."""
    return float(page.evaluate("Deck.heard.position"))


def wait_until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true.

    Playwright's own ``wait_for_function`` needs ``eval``, which the page's security policy forbids.
    """
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"did not become true: {condition}")


def wait_for_position(page: Any, seconds: float) -> None:
    wait_until(page, f"Deck.heard && Deck.heard.position > {seconds}")
