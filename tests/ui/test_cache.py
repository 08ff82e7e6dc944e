"""The cache: groups that choose, entries, and a flush of what was chosen."""

from playwright.sync_api import expect

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.ui.asking import chat, get, wait_for_entries
from tests.ui.conftest import MakeTab


def test_a_tag_is_chosen_and_flushed(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    for tags in ("docs", "docs,eval", "eval"):
        chat(server, marker(), headers={"x-llmproxy-tags": tags, "x-llmproxy-namespace": "lab"})
    shown = tab(server)
    shown.open("cache")
    shown.see("3 entries on disk")
    rows = shown.page.locator("tbody tr")
    expect(rows).to_have_count(3)
    group = shown.page.locator("section").filter(has=shown.page.get_by_role("heading", name="Tags"))
    group.get_by_role("button", name="docs").click()
    expect(rows).to_have_count(2)
    shown.button("Flush…").click()
    dialog = shown.page.get_by_role("dialog", name="Flush the cache")
    expect(dialog).to_contain_text("Every entry with tag docs")
    expect(dialog).to_contain_text("2 entries would go")
    shown.picture("flush")
    dialog.get_by_role("button", name="Keep").click()
    assert len(get(server, "/admin/cache/entries")["data"]) == 3
    shown.button("Flush…").click()
    dialog.get_by_role("button", name="Flush 2 entries").click()
    shown.see("No entry matches")
    shown.see("1 entry on disk")
    (left,) = get(server, "/admin/cache/entries")["data"]
    assert left["tags"] == ["eval"]


def test_entries_are_found_by_what_is_typed(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    for tag in ("docs", "eval", "eval"):
        chat(server, marker(), headers={"x-llmproxy-tags": tag})
    shown = tab(server)
    shown.open("cache")
    rows = shown.page.locator("tbody tr")
    expect(rows).to_have_count(3)
    shown.page.get_by_text("More filters").click()
    field = shown.page.get_by_label("tag", exact=True)
    field.fill("eval")
    field.press("Enter")
    expect(rows).to_have_count(2)
    expect(field).to_be_focused()
    shown.button("Take away tag eval").click()
    expect(rows).to_have_count(3)
    expect(field).to_have_value("")


def test_entries_are_found_by_words_and_say_what_was_asked(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    server = proxy(upstream.url)
    for animal in ("okapi", "okapi", "zebra"):
        chat(server, f"tell me of the {animal}")
    wait_for_entries(server, "limit=10", entries=2, hits=1)
    shown = tab(server)
    shown.open("cache")
    rows = shown.page.locator("tbody tr")
    expect(rows).to_have_count(2)
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("okapi")
    shown.page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("tell me of the okapi")
    rows.get_by_role("link").click()
    shown.heading("Entry")
    expect(shown.page.get_by_role("region", name="The question")).to_contain_text("tell me of the okapi")
    expect(shown.page.locator(".facts")).to_contain_text("Hits so far1")
    shown.page.get_by_role("link", name="The newest request that had this answer").click()
    shown.heading("Request")


def test_an_entry_is_looked_into_and_then_gone(proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab) -> None:
    server = proxy(upstream.url)
    chat(server, marker())
    key = get(server, "/admin/cache/entries")["data"][0]["key"]
    shown = tab(server, expected=("404",))
    shown.open("cache")
    shown.page.locator("tbody tr").get_by_role("link").click()
    shown.heading("Entry")
    shown.see("zero one two")
    shown.see(key)
    shown.button("Flush this entry").click()
    shown.page.get_by_role("dialog").get_by_role("button", name="Flush 1 entry").click()
    shown.see("The cache is empty")
    shown.open(f"cache/{key}")
    shown.see("This entry is gone")


def test_a_dialog_ends_with_escape_and_gives_the_focus_back(
    proxy: MakeProxy, upstream: ScriptedUpstream, tab: MakeTab
) -> None:
    shown = tab(proxy(upstream.url))
    shown.open("cache")
    shown.button("Flush…").focus()
    shown.page.keyboard.press("Enter")
    expect(shown.page.get_by_role("dialog")).to_contain_text("0 entries would go")
    shown.page.keyboard.press("Escape")
    expect(shown.page.get_by_role("dialog")).to_have_count(0)
    expect(shown.button("Flush…")).to_be_focused()
