"""Pairing a phone on the page, and the API on the page's port."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from impchat import paths
from impchat.peers.pairing import Link
from impchat.server.network import interfaces, registry
from impchat.server.network.interfaces import Interface
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Serve, Visit


@pytest.fixture
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers a server of this data folder that listens on a home network; none really runs."""
    monkeypatch.setattr(
        interfaces, "cards", lambda: [Interface("docker0", "172.17.0.1"), Interface("wlan0", "192.168.1.20")]
    )
    with registry.registered(tmp_path / "data", registry.Listening("0.0.0.0", 7861, "ab" * 32)):
        yield


@pytest.mark.usefixtures("reached")
def test_a_phone_is_paired_shown_and_removed(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    page = visit(site.url)
    page.get_by_role("button", name="Pair a phone").click()
    panel = page.get_by_role("dialog", name="Pair a phone")
    expect(panel.get_by_role("img", name="QR code")).to_be_visible()
    expect(panel).to_contain_text("4:5")
    link = Link.read(panel.get_by_role("button", name="Copy the link").get_attribute("data-link") or "")
    assert link.places == ("192.168.1.20:7861", "172.17.0.1:7861")
    panel.get_by_text("Addresses and fingerprint").click()
    expect(panel).to_contain_text("abab abab")

    site.access.redeem(link.code, "Anna's <b>phone</b>")
    expect(panel).to_contain_text("Anna's <b>phone</b> is paired")
    expect(panel.get_by_role("listitem").filter(has_text="Anna's")).to_be_visible()
    panel.get_by_role("button", name="Remove: Anna's").click()
    expect(panel).to_contain_text("None yet.")
    assert site.access.holders() == []

    panel.get_by_role("button", name="New code").click()
    expect(panel.get_by_role("img", name="QR code")).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


@pytest.mark.usefixtures("reached")
def test_an_expired_code_is_no_longer_shown(serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impchat.settings.PAIR_CODE_S", 2)
    page = visit(serve(ScriptedEngine()).url)
    page.get_by_role("button", name="Pair a phone").click()
    panel = page.get_by_role("dialog", name="Pair a phone")
    expect(panel).to_contain_text("expired")
    expect(panel.get_by_role("img", name="QR code")).to_have_count(0)


def test_there_is_no_code_if_only_loopback_is_served(serve: Serve, visit: Visit) -> None:
    page = visit(serve(ScriptedEngine()).url, locale="zh-CN")
    page.get_by_role("button", name="配对手机").click()
    panel = page.get_by_role("dialog", name="配对手机")
    expect(panel).to_contain_text("impchat web --listen")
    expect(panel.get_by_role("img")).to_have_count(0)


def test_another_site_gets_no_code(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        for headers in ({"origin": "http://elsewhere.example"}, {"host": "rebound.example"}):
            assert client.post("/devices/offer", headers=headers).status_code == 403
            assert client.get("/v1/models", headers=headers).status_code == 403


def test_the_api_is_on_the_same_port(serve: Serve) -> None:
    with httpx.Client(base_url=serve().url, trust_env=False, timeout=30) as client:
        asked = {"model": "imp-demo-196", "messages": [{"role": "user", "content": "Hello!"}]}
        done = client.post("/v1/chat/completions", json=asked)
        assert done.json()["choices"][0]["message"]["content"]
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
        for path in ("/chat/completions", "/v1//chat/completions", "/v1/chat/completions/"):
            assert client.post(path, json=asked).status_code == 200
        for path in ("/models", "/v1/models/", "/health", "/metrics"):
            assert client.head(path).status_code == client.get(path).status_code == 200
        assert client.post("/bundles").status_code == 405 and client.get("/bundles").status_code == 403


@pytest.mark.usefixtures("reached")
def test_the_panel_offers_the_app_if_the_server_has_it(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    site = serve(ScriptedEngine())
    page = visit(site.url)
    page.get_by_role("button", name="Pair a phone").click()
    panel = page.get_by_role("dialog", name="Pair a phone")
    expect(panel.get_by_role("img", name="QR code with the pairing link")).to_be_visible()
    expect(panel).not_to_contain_text("not on the phone yet")
    page.keyboard.press("Escape")

    folder = paths.apps_dir(site.app.data)
    folder.mkdir()
    for name in ("impchat-x86_64.apk", "impchat-arm64-v8a.apk"):
        (folder / name).write_bytes(name.encode() * 100_000)
    page.get_by_role("button", name="Pair a phone").click()
    panel.get_by_text("not on the phone yet").click()
    expect(panel.get_by_role("img", name="the app for Android")).to_be_visible()
    link = panel.get_by_role("link").first
    expect(link).to_have_text("impchat-arm64-v8a.apk")  # a phone's build comes before an emulator's
    expect(panel).to_contain_text("2 MB")
    expect(panel).to_contain_text(hashlib.sha256(b"impchat-arm64-v8a.apk" * 100_000).hexdigest())
    with page.expect_download() as begun:
        link.click()
    begun.value.save_as(tmp_path / "app.apk")
    assert (tmp_path / "app.apk").read_bytes() == b"impchat-arm64-v8a.apk" * 100_000
