"""A browser for the tests of the page, and PostgreSQL for those of what it asks."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.server import Proxy
from tests.ui.browsing import Tab

MakeTab = Callable[..., Tab]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The system's Chromium. Only for tests that are no coroutines: it brings an event loop of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed, and here it must be")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        # its sandbox does not work for root, and the only pages it opens are ours, some of them by another name
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP example.com 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[MakeTab]:
    """Opens tabs: ``tab(proxy)``, ``tab(proxy, color_scheme="dark", viewport=...)``. At the end none may have faults,
    but for those that are expected: ``tab(proxy, expected=("401",))``."""
    made: list[tuple[Tab, tuple[str, ...]]] = []

    def make(proxy: Proxy, *, expected: tuple[str, ...] = (), **options: object) -> Tab:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})  # type: ignore[arg-type]
        made.append((Tab(context.new_page(), proxy.url), expected))
        return made[-1][0]

    yield make
    for each, _ in made:
        each.page.context.close()
    for each, expected in made:
        assert [fault for fault in each.faults if not any(word in fault for word in expected)] == []
