"""Markup in a prompt, an answer, a model's name and headers is text in every view."""

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.ui.asking import chat, get, wait_for_record
from tests.ui.browsing import Tab, evaluated
from tests.ui.conftest import MakeTab
from tests.ui.hostile import MARKUP, MODEL, Hostile

HEADER = "<svg onload=\"window.harmed='header'\">"


def unharmed(shown: Tab) -> None:
    """Nothing ran, and no element was made of data."""
    assert evaluated(shown, "window.harmed") is None
    assert evaluated(shown, "document.querySelectorAll('[onerror], [onload], main img, main script').length") == 0


def test_markup_stays_text(proxy: MakeProxy, tab: MakeTab) -> None:
    with Hostile() as upstream:
        server = proxy(upstream.url)
        labels = dict.fromkeys(["user", "session", "namespace", "tags"], HEADER)
        headers = {f"x-llmproxy-{name}": value for name, value in labels.items()} | {"x-request-id": "<b>id</b>"}
        id = wait_for_record(server, chat(server, MARKUP, model=MODEL, headers=headers))
        chat(server, f"{MARKUP} again", model=MODEL, headers=headers | {"x-request-id": "other"})
        (row,) = [row for row in get(server, "/api/history")["data"] if row["request_id"] == id]
        shown = tab(server)
        shown.open("")
        expect(shown.page.get_by_role("row").filter(has_text=MODEL)).to_be_visible()
        unharmed(shown)
        for place, text in {"requests": MARKUP, "cache": HEADER, f"cache/{row['key']}": MARKUP}.items():
            shown.open(place)
            shown.see(text)
            unharmed(shown)
        shown.open("requests")
        shown.page.locator("tbody tr").last.get_by_role("link").click()
        shown.heading("Request")
        shown.see(MARKUP)
        shown.see(HEADER)
        shown.page.get_by_text("Bodies as they were").click()
        unharmed(shown)
        shown.open("requests/other")
        expect(shown.page.locator(".diff ins")).to_be_visible()
        shown.page.get_by_text("What is in the key").click()
        unharmed(shown)
        shown.open("try")
        shown.page.get_by_label("Your message").fill(MARKUP)
        shown.button("Ask").click()
        expect(shown.page.locator(".from-assistant")).to_contain_text(MARKUP)
        unharmed(shown)
