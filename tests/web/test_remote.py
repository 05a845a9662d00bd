"""The page with a remote server: the page names it, and markup in the server's names is not rendered."""

from __future__ import annotations

from dataclasses import replace

from playwright.sync_api import expect

from impchat import bundle, paths
from impchat.engines.local.engine import LocalEngine
from impchat.engines.remote.engine import RemoteEngine
from impchat.peers import servers
from tests.core.hostile import FINE, MODELS, Hostile
from tests.core.hostile import answer as reply
from tests.core.loopback import Loopback, serving
from tests.web.conftest import Serve, Visit, drawing
from tests.web.hands import add_by_click, answer, send


def test_the_page_says_that_a_server_answers(serve: Serve, visit: Visit) -> None:
    engine = LocalEngine(bundle.load(paths.demo_bundle()), threads=1)
    far = Loopback(engine)
    with serving(far):
        name = "Living <b>room</b>"
        site = serve(RemoteEngine(replace(servers.at(far.url), name=name, model="imp-demo-196")))
        page = visit(site.url)
        expect(page.locator("#local")).to_contain_text(f"The server {name} answers")
        expect(page.locator("#banner")).to_contain_text("Demo model")  # the server's model is the demo too
        add_by_click(page, drawing("red"))
        expect(page.locator("#chips")).to_contain_text("Ready, ask anything")
        send(page, "What colour is the circle?")
        expect(answer(page, 1)).to_contain_text("red")
        page.reload()
        expect(page.locator("#local")).to_contain_text(f"The server {name} answers")
        assert {body["model"] for body in far.asked} == {"imp-demo-196"}
        assert far.asked[-1]["prompt_cache_key"] == far.asked[0]["prompt_cache_key"]
    engine.close()


def test_the_page_says_that_the_model_there_is_unverified(serve: Serve, visit: Visit) -> None:
    far = Hostile(FINE)
    far.gets["/v1/models"] = reply({"data": [MODELS["data"][0] | {"unverified": True}]})
    with serving(far):
        engine = RemoteEngine(servers.at(far.url))
        engine.connect()
        page = visit(serve(engine).url)
        expect(page.locator("#banner")).to_contain_text("Unverified model")


def test_a_hostile_model_name_runs_no_script(serve: Serve, visit: Visit) -> None:
    name = "<img src=x onerror='window.harmed = 1'>"
    page = visit(serve(RemoteEngine(servers.at("http://127.0.0.1:1", model=name))).url)
    expect(page.locator("#top .model")).to_have_text(name)
    assert page.evaluate("window.harmed === undefined")


def test_an_unreachable_server_is_reported_and_the_history_is_kept(serve: Serve, visit: Visit) -> None:
    page = visit(serve(RemoteEngine(servers.at("http://127.0.0.1:1", model="tiny"))).url)
    send(page, "Hello!")
    expect(page.locator("#thread .note.error")).to_contain_text("Nothing answers at http://127.0.0.1:1/v1")
    page.reload()
    expect(page.locator(".bubble")).to_have_text("Hello!")
