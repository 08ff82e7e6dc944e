"""Every view with real data of llama.cpp, in light, in dark, and on a telephone."""

import json

import pytest
from playwright.sync_api import expect

from tests.llama import CHAT_MODEL, EMBEDDING_MODEL
from tests.server import Proxy
from tests.ui.asking import chat, get, post, wait_for_record
from tests.ui.browsing import MILLISECONDS
from tests.ui.conftest import MakeTab

LOOKS: dict[str, dict[str, object]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}
QUESTIONS = ("Why is the sky blue?", "Name three rivers.")


@pytest.fixture(scope="module")
def seen(llama_front: Proxy) -> dict[str, str]:
    """What there is to see: the ids of a hit, of an entry, and of a job."""
    asked = []
    for user in ("ada", "grace"):
        labels = {"x-llmproxy-user": user, "x-llmproxy-session": "tour", "x-llmproxy-tags": "docs"}
        asked += [chat(llama_front, text, model=CHAT_MODEL, max_tokens=4, headers=labels) for text in QUESTIONS]
    with llama_front.line() as line:
        body = json.dumps({"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Never asked."}]}).encode()
        headers = [("content-type", "application/json"), ("cache-control", "only-if-cached")]
        assert line.ask("POST", "/v1/chat/completions", headers, body).status == 504
    for _ in range(2):
        post(llama_front, "/v1/embeddings", {"model": EMBEDDING_MODEL, "input": ["a", "b"]})
    batch = {"prompts": list(QUESTIONS), "model": CHAT_MODEL, "max_tokens": 4}
    job = json.loads(post(llama_front, "/api/completions/batch", batch).body)["task_id"]
    miss, hit = wait_for_record(llama_front, asked[0]), wait_for_record(llama_front, asked[2])
    return {"miss": miss, "hit": hit, "job": job, "entry": get(llama_front, f"/api/history/{hit}")["key"]}


@pytest.mark.parametrize("look", LOOKS)
def test_every_view(llama_front: Proxy, seen: dict[str, str], tab: MakeTab, look: str) -> None:
    views = {
        "overview": ("", "Overview", CHAT_MODEL),
        "requests": ("requests", "Requests", CHAT_MODEL),
        "request": (f"requests/{seen['miss']}", "Request", QUESTIONS[0]),
        "past": ("overview?window=30d", "Overview", "In all since"),
        "users": ("users", "Users", "grace"),
        "sessions": ("sessions", "Sessions", "tour"),
        "cache": ("cache", "Cache", QUESTIONS[0]),
        "entry": (f"cache/{seen['entry']}", "Entry", QUESTIONS[0]),
        "jobs": ("jobs", "Jobs", "of 2"),
        "job": (f"jobs/{seen['job']}", "Job", "of 2"),
        "try": ("try", "Try it", "ask it again"),
    }
    shown = tab(llama_front, **LOOKS[look])
    for name, (place, heading, text) in views.items():
        shown.open(place)
        shown.heading(heading)
        shown.see(text)
        expect(shown.page.get_by_role("navigation", name="Views").locator("[aria-current=page]")).to_have_count(1)
        assert shown.fits(), (name, look)
        # the telephone has the same elements in the same colours
        assert look == "phone" or shown.findings() == [], (name, look)
        shown.picture(f"{name}-{look}")


def test_the_overview_tells_what_is_so(llama_front: Proxy, seen: dict[str, str], tab: MakeTab) -> None:
    shown = tab(llama_front)
    shown.open()
    shown.see("Time saved")
    expect(shown.page.get_by_role("row", name=CHAT_MODEL).first).to_be_visible()
    expect(shown.page.get_by_role("img", name="hit: median")).to_be_visible()
    expect(shown.page.get_by_role("img", name="miss: median")).to_be_visible()
    expect(shown.page.get_by_role("region", name="Model servers").get_by_text("ok")).to_have_count(2)
    shown.button("Live").click()
    expect(shown.button("Live")).to_have_attribute("aria-pressed", "true")
    expect(shown.page.get_by_role("row", name=CHAT_MODEL).first).to_be_visible()


def test_a_miss_is_explained_by_what_differs(llama_front: Proxy, seen: dict[str, str], tab: MakeTab) -> None:
    shown = tab(llama_front)
    shown.open(f"requests/{seen['miss']}")
    shown.see("Nothing was cached for this request.")
    shown.see("Where the time went")
    shown.see("POST /v1/chat/completions")
    expect(shown.page.get_by_role("rowheader", name="Answer received and passed on")).to_be_visible()
    shown.page.get_by_text("Bodies as they were").click()
    expect(shown.page.get_by_label("request", exact=True)).to_contain_text('"max_tokens": 4')


def test_a_chat_that_is_asked_twice(llama_front: Proxy, tab: MakeTab) -> None:
    shown = tab(llama_front)
    shown.open("try")
    shown.page.get_by_label("Tokens at most").fill("5")
    shown.page.get_by_label("Model").select_option(CHAT_MODEL)
    shown.page.get_by_label("Your message").fill("Name a colour of the rainbow.")
    shown.page.get_by_label("Your message").press("Enter")
    talk = shown.page.get_by_role("list", name="Conversation")
    expect(talk).to_contain_text("first token")
    expect(talk.locator(".mark")).to_have_text("miss")
    expect(talk).to_contain_text("→ 5 tokens")
    answer = talk.locator(".from-assistant .markdown").inner_text()
    assert answer.strip("…").strip()
    # what is set meanwhile is for the next question
    shown.page.get_by_label("System prompt").fill("Be brief.")
    shown.page.get_by_label("Temperature").fill("0")
    shown.button("Ask again").click()
    expect(talk.locator(".mark")).to_have_text(["miss", "hit"])
    expect(talk.locator(".from-assistant .markdown")).to_have_text([answer, answer], use_inner_text=True)
    expect(talk).to_contain_text("as fast as the first time. The answer is the same.")
    shown.picture("try-asked")
    assert shown.findings() == []
    shown.page.reload()
    expect(talk.locator(".mark")).to_have_text(["miss", "hit"])
    expect(shown.page.get_by_label("System prompt")).to_have_value("Be brief.")
    shown.button("New chat").click()
    shown.page.get_by_label("Your message").fill("Name a colour of the rainbow.")
    shown.page.get_by_label("Your message").press("Enter")
    expect(talk.locator(".mark")).to_have_text("miss")
    talk.get_by_role("link", name="details").click()
    shown.page.get_by_text("Bodies as they were").click()
    for part in ('"content": "Be brief."', '"temperature": 0'):
        expect(shown.page.get_by_label("request", exact=True)).to_contain_text(part)
    shown.open("try")
    expect(shown.page.get_by_label("Model").get_by_role("option")).to_have_text([CHAT_MODEL])


def test_an_answer_is_flushed_and_made_anew(llama_front: Proxy, tab: MakeTab) -> None:
    id = wait_for_record(llama_front, chat(llama_front, "Name a bird.", model=CHAT_MODEL, max_tokens=4))
    shown = tab(llama_front)
    shown.open(f"requests/{id}")
    shown.button("Replay").click()
    expect(shown.page.locator(".again")).to_contain_text("hit")
    shown.button("Flush this entry").click()
    shown.page.get_by_role("dialog").get_by_role("button", name="Flush 1 entry").click()
    expect(shown.page.get_by_text("1 entry flushed")).to_be_visible()
    shown.button("Replay").click()
    expect(shown.page.locator(".again")).to_contain_text("miss")


def test_a_job_is_cancelled_while_it_runs(llama_front: Proxy, tab: MakeTab) -> None:
    batch = {"prompts": [f"Count to {n}." for n in range(100)], "model": CHAT_MODEL, "max_tokens": 16}
    job = json.loads(post(llama_front, "/api/completions/batch", batch).body)["task_id"]
    shown = tab(llama_front)
    shown.open(f"jobs/{job}")
    # at least one is done, and the bar has moved
    expect(shown.page.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", "0", timeout=4 * MILLISECONDS)
    shown.button("Cancel").click()
    expect(shown.page.locator(".title")).to_contain_text("cancelled")
    told = get(llama_front, f"/admin/jobs/{job}")["progress"]
    assert 0 < told["completed"] < told["total"]
    shown.picture("job-cancelled")
