"""A phone downloads the app from the server without a token, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from impchat import paths
from impchat.app import App
from impchat.server.api.routes import build_api
from impchat.server.tokens import Access
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import Site


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client without a token, at a server that has the app."""
    paths.apps_dir(tmp_path).mkdir()
    (paths.apps_dir(tmp_path) / "impchat-arm64-v8a.apk").write_bytes(b"an app")
    (paths.apps_dir(tmp_path) / "notes.txt").write_text("not an app")
    with closing(Access(tmp_path)) as access:
        app = App.open(tmp_path, engine=ScriptedEngine())
        site = Site(app, build_api(app, access=access, token_needed=True))
        with site.client() as client:
            yield client
        site.close()


def test_the_app_is_sent_whole_with_its_hash_and_androids_media_type(stranger: httpx.Client) -> None:
    got = stranger.get("/app/impchat-arm64-v8a.apk")
    assert got.content == b"an app"
    assert got.headers["content-type"] == "application/vnd.android.package-archive"
    assert got.headers["etag"] == f'"{hashlib.sha256(b"an app").hexdigest()}"'
    assert "attachment" in got.headers["content-disposition"]
    assert stranger.head("/app/impchat-arm64-v8a.apk").headers["content-length"] == "6"
    assert stranger.get("/app/impchat-arm64-v8a.apk", headers={"range": "bytes=3-"}).content == b"app"


@pytest.mark.parametrize(
    "name", ["notes.txt", "other.apk", "..%2fhistory.db", "../history.db", "", "%2e%2e/history.db"]
)
def test_only_apps_are_sent(stranger: httpx.Client, name: str) -> None:
    assert stranger.get(f"/app/{name}").status_code in (401, 404)
    assert stranger.post("/app/impchat-arm64-v8a.apk").status_code == 401
