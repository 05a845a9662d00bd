"""Saved servers: addresses in the forms that people type, and the file that stores them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from impchat.errors import ImpChatError
from impchat.peers import servers
from impchat.peers.servers import Server

HOME = Server("home", "Living room", ("http://127.0.0.1:7861/v1",), "secret-word", "imp", None)


@pytest.mark.parametrize(
    ("typed", "api"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        (" http://127.0.0.1:8000/ ", "http://127.0.0.1:8000/v1"),
        ("https://example.org/v1/", "https://example.org/v1"),
        ("https://example.org/v1/chat/completions", "https://example.org/v1"),
        ("https://example.org/api/v3", "https://example.org/api/v3"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_are_accepted_in_the_forms_people_type(typed: str, api: str) -> None:
    assert servers.at(typed).urls == (api,)


@pytest.mark.parametrize(
    "typed", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x:99999", "http://me:word@x", "http://x/v1?key=1"]
)
def test_invalid_addresses_and_those_with_a_password_are_refused(typed: str) -> None:
    with pytest.raises(ImpChatError) as refused:
        servers.at(typed)
    assert refused.value.code == "server.address"


def test_servers_are_saved_changed_and_removed(tmp_path: Path) -> None:
    assert servers.load(tmp_path) == []
    servers.save(tmp_path, HOME)
    servers.save(tmp_path, servers.at("http://127.0.0.1:1"))
    changed = Server("home", "Kitchen", HOME.urls, certificate="PEM")
    servers.save(tmp_path, changed)
    assert servers.load(tmp_path) == [changed, servers.at("http://127.0.0.1:1")]
    assert servers.find(tmp_path, "Kitchen") == servers.find(tmp_path, "home") == changed
    servers.remove(tmp_path, "home")
    assert [s.id for s in servers.load(tmp_path)] == ["127.0.0.1:1"]
    for what in (servers.remove, servers.find):
        with pytest.raises(ImpChatError) as unknown:
            what(tmp_path, "home")
        assert unknown.value.code == "server.unknown" and "127.0.0.1:1" in str(unknown.value)


def test_only_the_owner_can_read_the_keys(tmp_path: Path) -> None:
    servers.save(tmp_path, HOME)
    assert stat.S_IMODE((tmp_path / servers.FILE).stat().st_mode) == 0o600
    assert "secret-word" not in repr(HOME)


def test_simultaneous_writers_lose_nothing(tmp_path: Path) -> None:
    writers = [
        threading.Thread(target=servers.save, args=(tmp_path, servers.at(f"http://127.0.0.1:{n}"))) for n in range(1, 9)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(servers.load(tmp_path)) == 8


@pytest.mark.parametrize("text", ["", "{", "[]", '{"servers": [{"id": "x"}]}', json.dumps({"servers": [{"urls": 1}]})])
def test_a_damaged_file_is_reported_and_left_unchanged(tmp_path: Path, text: str) -> None:
    (tmp_path / servers.FILE).write_text(text)
    for action in (lambda: servers.load(tmp_path), lambda: servers.save(tmp_path, HOME)):
        with pytest.raises(ImpChatError) as broken:
            action()
        assert broken.value.code == "server.file_broken"
    assert (tmp_path / servers.FILE).read_text() == text


@pytest.mark.parametrize(
    ("url", "near", "readable"),
    [
        ("http://127.0.0.1:1/v1", True, False),
        ("http://localhost/v1", True, False),
        ("http://192.168.1.5/v1", True, True),
        ("https://192.168.1.5/v1", True, False),
        ("http://example.org/v1", False, True),
        ("https://example.org/v1", False, False),
    ],
)
def test_local_and_unencrypted_addresses_are_recognised(url: str, near: bool, readable: bool) -> None:
    assert (servers.is_near(url), servers.is_readable(url)) == (near, readable)


def test_the_authorities_of_httpx_are_used_if_the_system_has_none() -> None:
    code = "from impchat.peers import servers; print(len(servers.trust(None).get_ca_certs()))"
    nowhere = {"SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 50


def test_a_key_is_one_word(tmp_path: Path) -> None:
    assert servers.key_in(" sk-1_2\n") == "sk-1_2"
    for wrong in ("two words", "schlüssel", "a\nb"):
        with pytest.raises(ImpChatError) as refused:
            servers.key_in(wrong)
        assert refused.value.code == "server.key"
    with pytest.raises(ImpChatError) as refused:
        servers.trust("no PEM")
    assert refused.value.code == "server.certificate"
