"""Who may see the page's data, and what it says when the proxy is away."""

from pathlib import Path

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.deploy.reverse_proxies import SITE, ReverseProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.ui.asking import chat
from tests.ui.browsing import evaluated
from tests.ui.conftest import MakeTab


def test_the_token_is_asked_for_once(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url, admin_token="open sesame")
    chat(server, marker(), model="scripted")
    shown = tab(server, expected=("401",))
    shown.open("requests")
    dialog = shown.page.get_by_role("dialog", name="Admin token")
    dialog.get_by_label("Token").fill("wrong")
    dialog.get_by_role("button", name="Open").click()
    expect(dialog).to_contain_text("not the right one")
    shown.picture("token")
    dialog.get_by_label("Token").fill("open sesame")
    dialog.get_by_role("button", name="Open").click()
    expect(shown.page.get_by_role("row", name="scripted")).to_be_visible()
    expect(dialog).to_have_count(0)
    shown.open("cache")
    shown.see("1 entry on disk")
    shown.page.reload()
    shown.see("1 entry on disk")
    assert evaluated(shown, "localStorage.length") == 0


def test_with_keys_the_chat_asks_for_one(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url, admin_token="t", api_keys="me:mine")
    shown = tab(server, expected=("401",))
    shown.open("try")
    shown.see("No API key provided")
    shown.page.get_by_label("API key").fill("mine")
    shown.page.get_by_label("API key").press("Tab")
    expect(shown.page.get_by_label("Model")).not_to_have_value("")


def test_the_chat_does_not_begin_with_a_model_that_only_embeds(proxy: MakeProxy, tab: MakeTab) -> None:
    with ScriptedUpstream("ollama") as upstream:
        tags = [{"name": "bge", "digest": "1", "capabilities": ["embedding"]}, {"name": "chat é", "digest": "2"}]
        upstream.pages["/api/tags"] = {"models": tags}
        upstream.pages["/v1/models"] = {"data": [{"id": "bge"}, {"id": "chat é"}]}
        shown = tab(proxy(upstream.url))
        shown.open("try")
        expect(shown.page.get_by_label("Model")).to_have_value("chat é")


def test_a_proxy_that_is_away_is_told_of(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    chat(server, marker())
    shown = tab(server, expected=("ERR_",))
    shown.open()
    expect(shown.page.get_by_role("row", name="scripted")).to_be_visible()
    server.stop()
    expect(shown.page.get_by_text("The proxy does not answer")).to_be_visible()
    expect(shown.page.get_by_role("row", name="scripted")).to_be_visible()
    # what was so before is not what is so
    expect(shown.page.locator(".state.good")).to_have_count(0)
    expect(shown.page.locator(".title .state")).to_have_text("unknown")


def test_what_was_wrong_is_no_longer_said_when_it_is_over(front: Proxy, tab: MakeTab) -> None:
    shown = tab(front, expected=("ERR_FAILED", "503"))
    shown.page.clock.install()
    shown.page.route("**/v1/models", lambda route: route.abort())
    shown.open("try")
    expect(shown.page.locator("main .problem")).to_be_visible()
    shown.page.unroute("**/v1/models")
    shown.page.clock.run_for(6_000)
    expect(shown.page.locator("main .problem")).to_have_count(0)
    shown.page.route(
        "**/admin/cache/groups", lambda route: route.fulfill(status=503, json={"error": {"message": "no"}})
    )
    shown.open("cache")
    expect(shown.page.locator("main .problem")).to_be_visible()
    shown.page.unroute("**/admin/cache/groups")
    shown.page.clock.run_for(6_000)
    expect(shown.page.locator("main .problem")).to_have_count(0)


def test_the_page_below_a_path_of_another_site(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab, tmp_path: Path
) -> None:
    server, prompt = proxy(upstream.url, allowed_hosts=SITE, admin_token="open sesame"), marker()
    chat(server, prompt)
    with ReverseProxy("nginx", tmp_path, server.port) as nginx:
        # of an address without TLS the browser says what it leaves out
        shown = tab(server, expected=("Cross-Origin-Opener-Policy", "401"))
        shown.url = f"http://{SITE}:{nginx.port}/llm"
        shown.open()
        dialog = shown.page.get_by_role("dialog", name="Admin token")
        dialog.get_by_label("Token").fill("open sesame")
        dialog.get_by_role("button", name="Open").click()
        expect(shown.page.get_by_role("row", name="scripted")).to_be_visible()
        shown.open("requests")
        shown.page.get_by_role("row", name=prompt).get_by_role("link").click()
        shown.button("Replay").click()
        expect(shown.page.locator(".again")).to_contain_text("hit")
        shown.button("Flush this entry").click()
        shown.page.get_by_role("dialog").get_by_role("button", name="Flush 1 entry").click()
        expect(shown.page.get_by_text("1 entry flushed")).to_be_visible()
        shown.page.goto(f"{shown.url}/ui/")
        expect(shown.page.get_by_role("row", name="scripted")).to_be_visible()


def test_a_page_that_may_not_act_says_why(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab, tmp_path: Path
) -> None:
    """The reverse proxy has another name than the proxy knows."""
    server = proxy(upstream.url)
    with ReverseProxy("nginx", tmp_path, server.port) as nginx:
        shown = tab(server, expected=("403", "404", "Cross-Origin-Opener-Policy"))
        shown.page.goto(f"http://{SITE}:{nginx.port}/llm/ui")
        expect(shown.page.get_by_text("Allow it with LLMPROXY_ALLOWED_HOSTS=example.com")).to_be_visible()


def test_the_link_past_the_head_is_the_first_stop(front: Proxy, tab: MakeTab) -> None:
    shown = tab(front)
    shown.open("requests")
    shown.heading("Requests")
    shown.page.keyboard.press("Tab")
    expect(shown.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    shown.page.keyboard.press("Enter")
    expect(shown.page.locator("main")).to_be_focused()


def test_a_view_that_is_none(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    shown = tab(proxy(upstream.url))
    shown.open("nowhere")
    shown.page.get_by_role("link", name="To the overview").click()
    shown.heading("Overview")
    shown.see("No requests in the last hour")
    shown.picture("empty")


def test_what_is_switched_off_says_so(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    shown = tab(proxy(upstream.url, jobs="false"), expected=("404",))
    shown.open("jobs")
    shown.see("LLMPROXY_JOBS=true switches them on")
    shown.open()
    shown.see("Jobs are switched off")
