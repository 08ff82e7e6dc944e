"""A real browser on the page: what is written to its console, and pictures of what it shows."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, FloatRect, Locator, Page, expect

#: names the folder where pictures are put
FOLDER = "UI_SCREENSHOTS"
MILLISECONDS = 60_000
expect.set_options(timeout=MILLISECONDS)


@dataclass
class Tab:
    """One tab. ``faults`` is what went wrong in it: errors and warnings of its console, exceptions of its scripts."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(MILLISECONDS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def open(self, place: str = "") -> None:
        """Goes to a place of the page, like ``requests?cache=hit``."""
        self.page.goto(f"{self.url}/ui#/{place}")

    def heading(self, name: str) -> None:
        """Waits for the view with this heading."""
        expect(self.page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()

    def see(self, text: str) -> None:
        expect(self.page.locator("main")).to_contain_text(text)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        fits: bool = self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        return fits

    def findings(self) -> list[str]:
        """What axe-core finds wrong in what is shown: the rule, and the elements."""
        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in found]

    def picture(self, name: str) -> None:
        """Keeps what is shown, where somebody wants pictures."""
        if folder := os.environ.get(FOLDER):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def box(place: Locator) -> FloatRect:
    """Where it is on the page, in pixels."""
    found = place.bounding_box()
    assert found is not None
    return found


def evaluated(tab: Tab, script: str) -> Any:
    return tab.page.evaluate(script)
