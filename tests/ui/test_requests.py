"""Finding requests, paging through them, and sending one again."""

import subprocess

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.ui.asking import chat, get, post, request_id, wait_for_record
from tests.ui.browsing import box
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


def test_the_slowest_and_the_largest_first(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    # a second server that is away: a model that nobody has is an error then
    server, prompt = proxy("http://127.0.0.1:9", upstream.url), marker()
    for text in (prompt, prompt, "another"):
        chat(server, text)
    with server.line() as line:
        line.ask("POST", "/v1/chat/completions", [("content-type", "application/json")], b'{"model": "unheard"}')
        line.ask(
            "POST",
            "/v1/chat/completions",
            [("cache-control", "only-if-cached"), ("content-type", "application/json")],
            b'{"model": "scripted", "messages": [{"role": "user", "content": "unheard"}]}',
        )
    shown = tab(server)
    shown.open("requests")
    rows = shown.page.locator("tbody tr")
    expect(rows).to_have_count(5)
    shown.page.get_by_role("columnheader", name="Total").get_by_role("link").click()
    expect(shown.page.get_by_role("columnheader", name="Total")).to_have_attribute("aria-sort", "descending")
    expect(rows).to_have_count(5)
    slowest = [row["id"] for row in get(server, "/api/history?order=slowest")["data"]]
    assert slowest != [row["id"] for row in get(server, "/api/history")["data"]]
    shown.page.get_by_text("More filters").click()
    shown.page.get_by_label("Seconds at least").fill("1000")
    shown.page.get_by_label("Seconds at least").press("Enter")
    shown.see("Nothing matches")
    shown.page.get_by_role("link", name="Clear").click()
    expect(rows).to_have_count(5)
    shown.page.get_by_text("More filters").click()
    shown.page.get_by_label("Tokens at least").fill("1")
    shown.page.get_by_label("Tokens at least").press("Enter")
    expect(rows).to_have_count(3)
    # what failed; that nothing is stored is none of it
    shown.open("requests?status=error")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("unheard")


def test_who_asked_and_in_which_session(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    for user in ("ada", "ada", "grace"):
        chat(server, f"tell {user}", headers={"x-llmproxy-user": user, "x-llmproxy-session": f"of-{user}"})
    shown = tab(server)
    for view, name in (("users", "ada"), ("sessions", "of-ada")):
        shown.open(view)
        expect(shown.page.get_by_role("row", name=name)).to_contain_text("50 %")
        shown.page.get_by_role("row", name=name).get_by_role("link").click()
        shown.heading("Requests")
        expect(shown.page.locator("tbody tr")).to_have_count(2)
        shown.see(f"{name}: 2 requests, 50 % hits")


#: a picture of one pixel
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def test_messages_are_markdown_and_pictures(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    text = "# Title\n\n- a **bold** word\n- <b>no</b> [link](javascript:alert(1)) and [one](https://elsewhere.example)\n\n```\ncode\n```"
    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://elsewhere.example/cat.png"}},
    ]
    content = [{"type": "text", "text": text}, *pictures]
    body = {"model": "scripted", "messages": [{"role": "user", "content": content}]}
    shown = tab(server)
    shown.open(f"requests/{wait_for_record(server, post(server, '/v1/chat/completions', body))}")
    talk = shown.page.locator(".talk")
    expect(talk.locator("strong")).to_have_text("bold")
    expect(talk.locator("li li")).to_have_count(2)
    expect(talk.locator("pre")).to_have_text("code")
    expect(talk).to_contain_text("<b>no</b> link and one")
    expect(talk.get_by_role("link")).to_have_attribute("href", "https://elsewhere.example")
    picture = talk.get_by_role("img", name="Image of the user's message")
    expect(picture).to_have_count(1)
    assert picture.evaluate("image => image.naturalWidth") == 1
    expect(talk).to_contain_text("https://elsewhere.example/cat.png")
    assert shown.findings() == []
    shown.button("As written").click()
    expect(talk).to_contain_text("# Title")


def test_a_request_is_copied_as_a_command(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    asked = chat(
        server, f'it\'s {marker()} $HOME `id` \\ "é"', temperature=1.0, headers={"x-llmproxy-namespace": "mine"}
    )
    shown = tab(server, permissions=["clipboard-read", "clipboard-write"])
    shown.open(f"requests/{wait_for_record(server, asked)}")
    shown.button("Copy as curl").click()
    expect(shown.page.get_by_text("The command is on the clipboard")).to_be_visible()
    command = shown.page.evaluate("navigator.clipboard.readText()")
    ran = subprocess.run(
        ["sh", "-c", f"{command} --silent --include"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "x-cache: HIT" in ran.stdout


def test_a_hit_is_told_apart_from_the_answer_that_it_replays(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    server, prompt = proxy(upstream.url), marker()
    miss, hit = (wait_for_record(server, chat(server, prompt)) for _ in range(2))
    shown = tab(server)
    shown.open(f"requests/{hit}")
    shown.see("The answer that it replays had taken the model server")
    expect(shown.page.get_by_text("Model server's time")).to_have_count(0)
    shown.open(f"requests/{miss}")
    shown.see("Model server's time")


def test_a_search_keeps_the_focus_and_says_what_it_found(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    server = proxy(upstream.url)
    for animal in ("zebra", "zebra", "okapi"):
        chat(server, f"tell me of the {animal}")
    shown = tab(server)
    shown.open("requests")
    found = shown.page.locator("main [role=status].unseen")
    expect(found).to_have_text("3 requests")
    search = shown.page.get_by_role("searchbox")
    search.fill("okapi")
    search.press("Enter")
    expect(found).to_have_text("1 request")
    expect(search).to_be_focused()
    shown.page.go_back()
    expect(found).to_have_text("3 requests")
    expect(search).to_have_value("")


def test_each_request_shows_what_it_asks(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    chat(server, "tell me\nof zebras " + "and more " * 100)
    with server.line() as line:
        line.ask("GET", "/v1/unheard")
    shown = tab(server)
    shown.open("requests")
    expect(shown.page.get_by_role("cell", name="GET /v1/unheard")).to_be_visible()
    asked = shown.page.get_by_role("cell", name="tell me of zebras and more")
    expect(asked).to_be_visible()
    assert shown.fits()
    shown.page.set_viewport_size({"width": 360, "height": 740})
    row, said = box(asked.locator("..")), box(asked.locator(".line"))
    figure, head = (
        box(shown.page.get_by_role("cell", name="scripted")),
        box(shown.page.get_by_role("columnheader", name="Model")),
    )
    assert shown.fits()
    # a line of its own over the row's width, below its figures, which stand below their heads
    assert said["width"] > 300
    assert figure["y"] + 20 < said["y"] < row["y"] + row["height"] - said["height"] + 1
    assert figure["x"] == head["x"]
    shown.picture("asked-phone")


def test_requests_of_one_id_are_opened_each(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    for number in ("first", "second"):
        chat(server, f"{number} of the same id", headers={"x-request-id": "mine/explain"})
    shown = tab(server)
    for number, other in (("first", "second"), ("second", "first")):
        shown.open("requests")
        shown.page.get_by_role("row", name=f"{number} of").get_by_role("link").click()
        shown.heading("Request")
        expect(shown.page.locator(".talk")).to_contain_text(f"{number} of")
        expect(shown.page.locator(".talk")).not_to_contain_text(f"{other} of")
    # what it is most like has the same id
    shown.see("It differs from the request most like it")
    shown.page.locator("section", has=shown.page.get_by_role("heading", name="Why")).get_by_role("link").click()
    expect(shown.page.locator(".talk")).to_contain_text("first of")


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
    shown.open(f"requests/{wait_for_record(server, first)}")
    shown.button("Replay").click()
    expect(shown.page.locator(".again")).to_contain_text("hit")
    shown.page.get_by_role("link", name="see it").click()
    shown.see("The entry was in the memory tier.")


def test_a_replay_has_the_query_of_its_url(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    body = {"model": "scripted", "messages": [{"role": "user", "content": marker()}]}
    plain, secret = (
        wait_for_record(server, post(server, f"/v1/chat/completions?{query}", body))
        for query in ("beta=true", "key=secret")
    )
    shown = tab(server)
    shown.open(f"requests/{plain}")
    shown.see("POST /v1/chat/completions?beta=true")
    shown.button("Replay").click()
    expect(shown.page.locator(".again")).to_contain_text("hit")
    shown.open(f"requests/{secret}")
    shown.see("may hold a secret and is not kept")
    shown.see("POST /v1/chat/completions?…")
    expect(shown.button("Replay")).to_be_disabled()


def test_an_entry_is_flushed_after_a_look(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server, prompt = proxy(upstream.url), marker()
    first = wait_for_record(server, chat(server, prompt))
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
    other = wait_for_record(server, chat(server, f"{prompt} It is 12:45 now."))
    shown = tab(server)
    shown.open(f"requests/{other}")
    shown.see("It differs from the request most like it in messages[0].content.")
    expect(shown.page.locator(".diff ins")).to_have_text("45")
    expect(shown.page.locator(".diff del")).to_have_text("30")
    shown.see("it looks like a date or a time of day")
    shown.picture("difference")
    assert get(server, "/api/history?limit=1")["data"][0]["request_id"] == other
