"""Security of the page: no foreign text runs as script, pictures are private, and requests from other sites are
refused."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from impchat import images
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Serve, Site, Visit, drawing
from tests.web.hands import QUESTION, add_by_click, answer, send

HOSTILE = """<script>window.harmed = 1</script><img src=x onerror="window.harmed = 2">
<svg onload="window.harmed = 3"></svg> [click](javascript:window.harmed=4) ![see](http://elsewhere.invalid/x.png)
`${window.harmed = 5}` ${window.harmed = 6} {{constructor.constructor("window.harmed = 7")()}} </article><h1>owned</h1>
<a href="javascript:window.harmed=8">go</a> <style>body { display: none }</style> <iframe src="//elsewhere.invalid">"""


def unharmed(page: Page) -> bool:
    return page.evaluate("window.harmed === undefined") and page.locator("#thread h1, #thread iframe").count() == 0


def test_hostile_text_of_a_user_and_of_a_model_stays_text(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, HOSTILE)
    script = engine.next()
    script.say(HOSTILE)
    expect(page.locator("#live .words")).to_contain_text("<script>window.harmed = 1</script>")
    assert unharmed(page)
    script.finish()
    expect(answer(page, 1)).to_contain_text('<img src=x onerror="window.harmed = 2">')
    expect(page.locator(".bubble")).to_have_text(HOSTILE)
    assert page.locator("#thread .words a").evaluate_all("links => links.map(a => a.href)") == [
        "http://elsewhere.invalid/x.png"
    ]
    page.reload()
    answer(page, 1)
    assert unharmed(page)


def test_a_script_injected_into_the_page_does_not_run(serve: Serve, visit: Visit) -> None:
    page = visit(serve(ScriptedEngine()).url, may_log=("Content Security Policy",))
    page.evaluate("""() => {
        document.querySelector("#thread").innerHTML = "<img src='/favicon.ico' onload='window.harmed = 1'>";
        document.head.append(Object.assign(document.createElement("script"), { textContent: "window.harmed = 2" }));
    }""")
    page.wait_for_function("document.querySelector('#thread img').complete")
    assert page.evaluate("window.harmed === undefined")


def test_an_answer_is_markdown_with_code_and_chinese(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "Show me")
    engine.next().finish("**圆形**是红色的。\n\n- one\n- two\n\n```python\nprint('<b>')\n```\n")
    words = answer(page, 1)
    expect(words.locator("strong")).to_have_text("圆形")
    expect(words.locator("li")).to_have_text(["one", "two"])
    expect(words.locator("pre")).to_have_text("print('<b>')")


def test_a_bad_file_is_refused_in_one_sentence_and_the_question_can_still_be_sent(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url, may_log=("422",))
    page.fill(QUESTION, "What is it?")
    add_by_click(page, b"not a picture", "fake.png")
    expect(page.get_by_role("alert")).to_contain_text("not a picture")
    expect(page.locator("#chips .chip")).to_have_count(0)
    expect(page.locator(QUESTION)).to_have_value("What is it?")
    page.press(QUESTION, "Enter")
    engine.next().finish("Nothing.")
    expect(answer(page, 1)).to_have_text("Nothing.")
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_unknown_conversation_opens_the_empty_page_and_says_so(serve: Serve, visit: Visit) -> None:
    page = visit(f"{serve(ScriptedEngine()).url}/?c=no-such-conversation")
    expect(page.get_by_role("alert")).to_contain_text("no such conversation")
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()


def ask(site: Site, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(site.url.removeprefix("http://"))
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_a_picture_is_served_to_its_owner_only(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    mine = site.app.history.add_image(images.prepare(drawing("red")), "local").sha256
    theirs = site.app.history.add_image(images.prepare(drawing("blue")), "somebody else").sha256
    unknown = hashlib.sha256(b"unknown").hexdigest()
    assert site.app.thumbnails.get(theirs), "cached for them, and still not shown to others"
    for route in ("image", "thumbnail"):
        assert ask(site, "GET", f"/{route}/{mine}").status == 200
        for sha in (theirs, unknown, "x", "..%2f..%2fhistory.db"):
            assert ask(site, "GET", f"/{route}/{sha}").status == 404
    assert ask(site, "GET", "/sample/..%2f..%2fpyproject.toml").status == 404


def test_requests_with_a_foreign_host_or_origin_are_refused(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    assert ask(site, "GET", "/").status == 200
    assert ask(site, "GET", "/", Host="impchat.example:80").status == 403
    assert ask(site, "GET", "/", Host="[::1").status == 403
    assert ask(site, "POST", "/attach", drawing(), Origin="http://elsewhere.example").status == 403
    assert ask(site, "POST", "/attach", drawing(), Origin="null").status == 403
    assert ask(site, "POST", "/gradio_api/run/predict", b"{}", Origin="http://localhost:1").status == 403
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert ask(site, "GET", "/favicon.ico", **embedded).status == 403
    assert ask(site, "POST", "/detach?c=x&image=y", Origin=site.url).status == 422  # the core refuses the values


def test_every_page_carries_the_policy_and_no_script_without_its_nonce(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    connection = http.client.HTTPConnection(site.url.removeprefix("http://"))
    connection.request("GET", "/")
    response = connection.getresponse()
    policy = response.getheader("content-security-policy") or ""
    text = response.read().decode()
    connection.close()
    nonce = re.search(r"'nonce-([\w-]+)'", policy)
    assert nonce
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert set(re.findall(r"<script([^>]*)", text)) and all(
        f'nonce="{nonce[1]}"' in attributes for attributes in re.findall(r"<script([^>]*)", text)
    )


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/runs", "/monitoring", "/docs", "/login"]
)
def test_unused_routes_of_gradio_are_closed(serve: Serve, path: str) -> None:
    site = serve(ScriptedEngine())
    assert ask(site, "GET", path).status == 404
    assert ask(site, "POST", path).status == 404


def test_gradio_keeps_no_copy_of_a_picture(
    serve: Serve, visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "gradio"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    add_by_click(page, drawing())
    send(page, "What is it?")
    engine.next().finish()
    engine.next().finish("A circle.")
    expect(answer(page, 1)).to_have_text("A circle.")
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_gradio_publishes_no_api_description(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    connection = http.client.HTTPConnection(site.url.removeprefix("http://"))
    connection.request("GET", "/config")
    config = json.loads(connection.getresponse().read())
    connection.close()
    assert {d["api_visibility"] for d in config["dependencies"]} == {"private"}
    assert not config["analytics_enabled"]
    assert not config["run_history"]
