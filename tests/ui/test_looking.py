"""Figures move while somebody looks, and only then; and what a keyboard can do."""

import pytest
from playwright.sync_api import Request, Route, expect

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.ui.asking import chat
from tests.ui.browsing import evaluated
from tests.ui.conftest import MakeTab

#: how many pixels of the large chart are painted in the colour of hits
PAINTED = """() => {
  const canvas = document.querySelector("section.panel .chart canvas");
  const hits = document.querySelector(".legend .swatch");
  const [red, green, blue] = getComputedStyle(hits).backgroundColor.match(/[0-9]+/g);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4)
    found += data[at] == red && data[at + 1] == green && data[at + 2] == blue;
  return found;
}"""


def test_what_happens_is_drawn(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server, prompt = proxy(upstream.url), marker()
    shown = tab(server, expected=("willReadFrequently",))
    shown.open("overview?window=5m")
    shown.see("Requests a second")
    assert evaluated(shown, PAINTED) == 0
    for _ in range(20):
        chat(server, prompt)
    hits = shown.page.get_by_role("region", name="Requests a second").get_by_role("listitem").filter(has_text="hits")
    expect(hits.locator("b")).not_to_have_text("0")
    # a second's column is painted once the next second is known
    for _ in range(3):
        shown.page.wait_for_event("response", lambda answer: answer.url.endswith("/api/cache/stats"))
    assert evaluated(shown, PAINTED) > 20
    shown.see("of 20 requests looked up")


def test_each_row_of_the_figures_leads_to_its_requests(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    server = proxy(upstream.url)
    chat(server, marker())
    with server.line() as line:
        line.ask("GET", "/v1/unheard")
    shown = tab(server)
    for model, endpoint in (("none", "other"), ("scripted", "chat")):
        shown.open("")
        shown.page.get_by_role("row", name=f"{model} {endpoint}").get_by_role("link").click()
        shown.heading("Requests")
        expect(shown.page.locator("tbody tr")).to_have_count(1)


#: the gaps between the labels of the scale that are shown, in pixels
GAPS = """() => {
  const labels = [...document.querySelectorAll(".scale span")].map((each) => each.getBoundingClientRect());
  const shown = labels.filter((each) => each.width > 0);
  return shown.slice(1).map((each, n) => each.left - shown[n].right);
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_the_labels_of_a_scale_are_apart(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab, width: int
) -> None:
    server, prompt = proxy(upstream.url), marker()
    for _ in range(2):
        chat(server, prompt)

    def far_apart(route: Route) -> None:
        """From microseconds to minutes, as a large model's answers are."""
        figures = route.fetch().json()
        for word, length in (("hit", 2e-5), ("miss", 90.0)):
            figures["total"]["by_cache"][word]["duration_seconds"].update(p50=length, p95=length, p99=length)
        route.fulfill(json=figures)

    shown = tab(server, viewport={"width": width, "height": 740})
    shown.page.route("**/api/performance*", far_apart)
    shown.open()
    expect(shown.page.get_by_role("img", name="miss: median 1 min 30 s")).to_be_visible()
    gaps = evaluated(shown, GAPS)
    assert len(gaps) >= 3
    assert min(gaps) >= 2


def test_nothing_is_asked_while_nobody_looks(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    shown = tab(proxy(upstream.url))
    shown.page.clock.install()
    shown.open()
    shown.see("Time saved")
    shown.page.wait_for_load_state("networkidle")
    asked: list[Request] = []
    shown.page.on("request", lambda request: asked.append(request))  # noqa: PLW0108  it takes no built-in method
    with shown.page.expect_request("**/api/cache/stats"):
        shown.page.clock.run_for(1_500)
    shown.page.wait_for_load_state("networkidle")
    evaluated(shown, "Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    shown.page.clock.run_for(5_000)
    asked.clear()
    shown.page.clock.run_for(60_000)
    assert asked == []
    with shown.page.expect_request("**/api/cache/stats"):
        evaluated(shown, "delete document.hidden, document.dispatchEvent(new Event('visibilitychange'))")


def test_a_keyboard_reaches_everything(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    chat(server, marker())
    shown = tab(server)
    shown.open("requests")
    expect(shown.page.locator("tbody tr")).to_have_count(1)
    shown.page.get_by_role("link", name="Skip to the content").focus()
    shown.page.keyboard.press("Enter")
    expect(shown.page.locator("main")).to_be_focused()
    shown.page.locator("tbody tr").get_by_role("link").focus()
    shown.page.keyboard.press("Enter")
    shown.heading("Request")
    expect(shown.page.locator("main")).to_be_focused()
