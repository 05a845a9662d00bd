"""What the page costs: transferred bytes, the time until something is visible, memory, and processor time while
idle."""

from __future__ import annotations

import gc
import random
import re
import time

import httpx
from gradio.state_holder import SessionState
from playwright.sync_api import Browser, expect

from benchmarks import page_idle, page_memory
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import SECONDS, Serve, Visit
from tests.web.hands import send

PAGES = 24
MEGABYTES = 100  # for the model, the vision encoder and two photos while processed; 240 if freed photos stay in memory
WAKE_UPS = 25
MEASURED_S = 2.0


def test_the_pages_files_are_compressed_and_cached_by_the_browser(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    with httpx.Client(base_url=site.url, trust_env=False, headers={"accept-encoding": "gzip"}) as client:
        page = client.get("/")
        loaded = [path for path in re.findall(r'(?:src|href)="\.?(/[^"]+)"', page.text) if path != "/manifest.json"]
        assert any("/assets/" in path for path in loaded) and any("page.css" in path for path in loaded)
        assert page.headers["content-encoding"] == "gzip"
        for path in loaded:
            response = client.get(path)
            assert response.headers["content-encoding"] == "gzip", path
            assert "immutable" in response.headers["cache-control"], path
        answer = client.get("/v1/models")
        assert "content-encoding" not in answer.headers  # programs may not support it


def test_an_answer_is_streamed_word_by_word_although_the_page_is_compressed(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    with page.expect_response(re.compile("/follow/")) as follow:
        send(page, "Tell me")
        script = engine.next()
        script.say("One")
        expect(page.locator("#live .words")).to_have_text("One")  # the response has not ended
    assert follow.value.headers["content-encoding"] == "identity"
    script.finish()


def test_the_page_has_its_name_and_language_before_gradios_scripts_load(serve: Serve, browser: Browser) -> None:
    site = serve(ScriptedEngine())
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.route("**/assets/*.js", lambda route: None)  # they never load
    page.goto(site.url, wait_until="commit")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    assert page.evaluate("getComputedStyle(document.body, '::before').content") == '"ImpChat"'
    assert page.title() == "ImpChat"
    assert page.evaluate("document.documentElement.lang") == "zh"
    names = "document.querySelectorAll('meta[property^=og], meta[name^=twitter], meta[name=description]')"
    metadata = page.evaluate(f"[...{names}].map((meta) => meta.content)")
    assert metadata == ["就图片提问", "ImpChat", "就图片提问"]
    context.close()


def test_closed_pages_leave_little_in_memory(serve: Serve) -> None:
    def sessions() -> int:
        gc.collect()
        return sum(type(thing) is SessionState for thing in gc.get_objects())

    site = serve(ScriptedEngine())
    before = sessions()
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        for _ in range(PAGES):
            page_memory.Page(client)
    assert sessions() - before < PAGES / 2


def test_photos_are_freed_and_an_idle_page_uses_no_processor_time() -> None:
    with page_memory.served() as (address, pid), httpx.Client(base_url=address, timeout=SECONDS) as client:
        before, _ = page_memory.memory(pid)
        chance = random.Random(1)
        for _ in range(2):
            page_memory.converse(client, chance)
        after, _ = page_memory.memory(pid)
        assert after - before < MEGABYTES
        _, woken = page_idle.taken(pid)
        time.sleep(MEASURED_S)
        assert (page_idle.taken(pid)[1] - woken) / MEASURED_S < WAKE_UPS
