"""Finding requests, paging through them, and sending one again."""

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.ui.asking import chat, get, request_id
from tests.ui.conftest import MakeTab


def test_new_requests_appear_by_themselves(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    shown = tab(server)
    shown.open("requests")
    shown.see("No requests yet")
    chat(server, marker(), headers={"x-llmproxy-user": "ada"})
    expect(shown.page.get_by_role("row", name="ada")).to_be_visible()


def test_requests_are_found_by_words_and_by_filters(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    for name in ("ada", "grace", "ada"):
        chat(server, f"tell {name} of zebras", headers={"x-llmproxy-user": name, "x-llmproxy-session": f"of-{name}"})
    shown = tab(server)
    shown.open("requests")
    rows = shown.page.locator("tbody tr")
    expect(rows).to_have_count(3)
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("grace zebras")
    shown.page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    shown.open("requests?cache=hit")
    expect(rows).to_have_count(1)
    shown.open("requests?session_id=of-ada")
    shown.see("Session of-ada: 2 requests, 50 % hits")
    shown.open("requests?q=unheard")
    shown.see("Nothing matches")


def test_pages_go_back_to_the_first_request(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server, prompt = proxy(upstream.url), marker()
    ids = [request_id(chat(server, prompt)) for _ in range(60)]
    shown = tab(server)
    shown.open("requests")
    rows = shown.page.locator("tbody tr")
    expect(rows).to_have_count(50)
    shown.button("Older").click()
    expect(rows).to_have_count(10)
    rows.last.get_by_role("link").click()
    shown.heading("Request")
    shown.see(ids[0])


def test_a_replay_is_the_same_request_to_the_last_byte(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    """1.0 and 1 are other requests, and so are names in another order."""
    server = proxy(upstream.url)
    head = [("content-type", "application/json"), ("x-llmproxy-namespace", "mine")]
    message = f'{{"content": "{marker()} é", "role": "user", "2": 1}}'
    text = f'{{"temperature": 1.0, "model": "scripted", "messages": [{message}]}}'
    with server.line() as line:
        first = line.ask("POST", "/v1/chat/completions", head, text.encode())
    shown = tab(server)
    shown.open(f"requests/{request_id(first)}")
    shown.button("Replay").click()
    expect(shown.page.locator(".again")).to_contain_text("hit")
    shown.page.get_by_role("link", name="see it").click()
    shown.see("The entry was in the memory tier.")


def test_an_entry_is_flushed_after_a_look(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server, prompt = proxy(upstream.url), marker()
    first = request_id(chat(server, prompt))
    chat(server, marker())
    shown = tab(server)
    shown.open(f"requests/{first}")
    shown.button("Flush this entry").click()
    dialog = shown.page.get_by_role("dialog", name="Flush the cache")
    expect(dialog).to_contain_text("1 entry would go")
    assert chat(server, prompt).first("x-cache") == "HIT"
    dialog.get_by_role("button", name="Flush 1 entry").click()
    expect(shown.page.get_by_text("1 entry flushed")).to_be_visible()
    shown.button("Replay").click()
    expect(shown.page.locator(".again")).to_contain_text("miss")


def test_what_differs_is_shown(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server, prompt = proxy(upstream.url), marker()
    chat(server, f"{prompt} It is 12:30 now.")
    other = request_id(chat(server, f"{prompt} It is 12:45 now."))
    shown = tab(server)
    shown.open(f"requests/{other}")
    shown.see("It differs from the request most like it in messages[0].content.")
    expect(shown.page.locator(".diff ins")).to_have_text("45")
    expect(shown.page.locator(".diff del")).to_have_text("30")
    shown.see("it looks like a date or a time of day")
    shown.picture("difference")
    assert get(server, "/api/history?limit=1")["data"][0]["request_id"] == other
