"""The phone app on a path of the page's address: the same access rules, and no requests to other machines."""

from __future__ import annotations

import http.client
import io
import json
import urllib.request

from PIL import Image
from playwright.sync_api import Browser

from impchat import settings
from impchat_mobile.host import CHINESE
from tests.core.scripted import ScriptedEngine
from tests.mobile import hands
from tests.web.conftest import Serve, Site


def asked(site: Site, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(site.url.removeprefix("http://"))
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    if response.status != 101:
        response.read()
    response.close()
    connection.close()
    return response


def content(site: Site, path: str) -> bytes:
    with urllib.request.urlopen(site.url + path) as response:
        return bytes(response.read())


SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def test_the_pages_access_rules_apply_and_the_pages_own_policy_is_unchanged(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    for path in ("/mobile/", "/mobile/main.dart.mjs", "/mobile/assets/fonts/notosanssc/x.woff2"):
        assert asked(site, path, Host="impchat.example").status == 403
        assert asked(site, path, Origin="http://elsewhere.example").status == 403
        assert asked(site, path, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status == 403
    assert asked(site, "/mobile/ws", Origin=site.url, **SOCKET).status == 101
    for foreign in ({"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Host": "impchat.example"}):
        assert asked(site, "/mobile/ws", **(SOCKET | foreign)).status == 403
    assert asked(site, "/ws", Origin=site.url, **SOCKET).status == 403  # only the app uses sockets
    app = asked(site, "/mobile/").headers
    assert "connect-src 'self'" in app["content-security-policy"]
    assert "access-control-allow-origin" not in app
    page = asked(site, "/").headers["content-security-policy"]
    assert "'unsafe-inline'" not in page.split("script-src")[1].split(";")[0]
    assert asked(site, "/mobiles").status == 404


def test_chinese_has_a_font_if_this_machine_has_one(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    parts = {asked(site, f"/mobile/assets/fonts/notosanssc/v37/{n}.woff2").headers["location"] for n in (111, 118)}
    assert parts == {"/mobile/assets/fonts/chinese"}  # one file, however many parts a page requests
    got = asked(site, parts.pop())
    there = any(path.is_file() for path in CHINESE)
    assert got.status == (200 if there else 404)
    assert asked(site, "/mobile/assets/fonts/notosanskr/v1/1.woff2").status == 404


def test_the_app_works_on_the_pages_port_and_can_be_installed(serve: Serve, browser: Browser) -> None:
    site = serve()
    manifest = json.loads(content(site, "/mobile/manifest.json"))
    assert manifest["name"] == "ImpChat" and manifest["display"] == "standalone"
    assert manifest["icons"]
    for icon in manifest["icons"]:
        size = Image.open(io.BytesIO(content(site, f"/mobile/{icon['src']}"))).size
        assert icon["sizes"] == f"{size[0]}x{size[1]}"
    context = browser.new_context(viewport={"width": 412, "height": 915}, has_touch=True, is_mobile=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hands.boot(page, f"{site.url}/mobile/", "Send")
    hands.wait_for(page, "On this computer")
    hands.write(page, "Ask about a picture", "Hello")
    hands.tap(page, "Send")
    hands.wait_for(page, "tokens/s")
    context.close()
    elsewhere = {url for url in asked if not url.startswith((site.url, "blob:", "data:"))}
    assert all(url.startswith("https://cdn.jsdelivr.net/npm/@rive-app/") for url in elsewhere)  # blocked by the policy
    [chat] = site.app.history.conversations(settings.OWNER)  # shared with the page: both have the same owner
    assert chat
