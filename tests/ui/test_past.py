"""The windows of time of the overview."""

import json

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.ui.asking import chat, get
from tests.ui.conftest import MakeTab

WINDOWS = {
    "1 h": "Requests a minute",
    "24 h": "Requests an hour",
    "7 d": "Requests in 3 hours",
    "30 d": "Requests in 12 hours",
    "Live": "Requests a second",
}


def test_every_window_has_its_charts_and_goes_on(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server, prompt = proxy(upstream.url), marker()
    for _ in range(3):
        chat(server, prompt)
    shown = tab(server)
    shown.open()
    for button, title in WINDOWS.items():
        shown.button(button).click()
        region = shown.page.get_by_role("region", name=title)
        expect(region).to_be_visible()
        for name in ("Hit rate", "Latency", "Errors", "Time saved", "Tokens"):
            expect(shown.page.get_by_role("region", name=name, exact=True).locator("canvas")).to_be_visible()
        expect(shown.page.get_by_role("img", name="Hit rate: of what was looked up 67 %")).to_be_visible()
        assert shown.fits()
    shown.button("1 h").click()
    hits = shown.page.get_by_role("region", name="Requests a minute").get_by_role("listitem").filter(has_text="hits")
    expect(hits).to_have_text("hits 2")
    chat(server, prompt)
    expect(hits).to_have_text("hits 3")
    # the address has the window
    shown.page.reload()
    expect(shown.button("1 h")).to_have_attribute("aria-pressed", "true")


def test_what_was_saved_since_installation_outlives_a_restart(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    server, prompt = proxy(upstream.url), marker()
    for _ in range(2):
        chat(server, prompt)
    server.stop()
    server.start()
    saved = get(server, "/api/performance?window=5m")["all_time"]["saved"]
    tokens = saved["prompt_tokens"] + saved["completion_tokens"]
    assert tokens > 0
    shown = tab(server)
    shown.open()
    shown.see(f"{tokens} tokens")
    shown.see("In all since")


def test_failures_have_a_tile_that_leads_to_them(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy("http://127.0.0.1:9", upstream.url)
    with server.line() as line:
        body = json.dumps({"model": "unheard", "messages": [{"role": "user", "content": "x"}]}).encode()
        line.ask("POST", "/v1/chat/completions", [("content-type", "application/json")], body)
    shown = tab(server)
    shown.open()
    shown.page.get_by_role("link", name="All with a status from 400 on").click()
    shown.heading("Requests")
    expect(shown.page.locator("tbody tr")).to_have_count(1)
